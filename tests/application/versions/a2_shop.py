"""tags, dates, languages, and the shop"""

import sqlalchemy as sa
from alembic import op

revision = "a2"
down_revision = "a1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("articles", sa.Column("published", sa.Date(), nullable=True))
    op.add_column("authors", sa.Column("lang", sa.String(), server_default="en", nullable=False))
    op.create_table(
        "article_tags",
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name=op.f("fk_article_tags_article_id_articles"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("article_id", "tag", name=op.f("pk_article_tags")),
    )
    op.execute("CREATE SCHEMA shop")
    op.create_table(
        "products",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("price", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "sku", name=op.f("pk_products")),
        schema="shop",
    )


def downgrade() -> None:
    op.drop_table("products", schema="shop")
    op.execute("DROP SCHEMA shop")
    op.drop_table("article_tags")
    op.drop_column("authors", "lang")
    op.drop_column("articles", "published")
