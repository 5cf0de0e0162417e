"""Who may see and change what; sources by their number, which a rename keeps.

Rows of the catalog are seen by who may see the source, and changed by who owns it, writes it or works for all.
Vectors that were made are each role's own. Everybody may note changes, but only of tables that he may write: triggers
do it for him, with his rights and no others.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, REGCLASS

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SEES = "has_table_privilege(relation, 'SELECT') OR has_any_column_privilege(relation, 'SELECT')"
WRITES = (
    "has_table_privilege(relation, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(relation, 'UPDATE')"
)
OWNS = "pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = relation), 'USAGE')"
WORKS = "has_table_privilege('neural.workers', 'INSERT')"
OF_SEEN = "space_id IN (SELECT s.id FROM neural.spaces s)"
OF_WRITTEN = f"space_id IN (SELECT s.id FROM neural.spaces s WHERE {WRITES})"
OF_OWN = f"({OF_WRITTEN}) OR space_id IN (SELECT s.id FROM neural.spaces s WHERE {OWNS}) OR {WORKS}"
# a writer whose snapshot is older than a space does not see it
NOTABLE = f"NOT EXISTS (SELECT FROM neural.known_spaces s WHERE s.id = space_id) OR {OF_OWN}"

OF_SOURCES = ("changes", "pending", "failed", "term_counts", "corpus_counts")
EVERYBODYS = [f"neural.{table}" for table in (*OF_SOURCES[1:], "vectors")]
"""What everybody may change as far as the policies let him: rows of what is his."""


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS neural.unwatch_table(text, text)")
    op.execute("DROP FUNCTION IF EXISTS neural.watch_table(regclass, text, text, text[])")
    op.execute("DROP FUNCTION IF EXISTS neural.spaces_of(regclass, text, text)")
    op.execute("DROP FUNCTION IF EXISTS neural.kept_tables(bigint)")
    op.execute("DROP FUNCTION IF EXISTS neural.noting_triggers()")
    spaces()
    vectors()
    policies()


def spaces() -> None:
    for column in (
        sa.Column("relation", REGCLASS, comment="The source table, by its number: a rename does not change it"),
        sa.Column(
            "fields",
            JSONB,
            comment="Of neural.watch: the numbers of the columns that are title, content and language; NULL else",
        ),
        sa.Column("problem", sa.Text, comment="Why workers leave it alone for now; NULL where they do not"),
        sa.Column("reconciled", JSONB, comment="What the server had counted for its tables at the last comparison"),
    ):
        op.add_column("spaces", column, schema="neural")
    op.execute("UPDATE neural.spaces SET relation = to_regclass(source)")


def vectors() -> None:
    op.execute("TRUNCATE neural.vectors")
    owner = sa.Column(
        "owner", sa.Text, server_default=sa.text("CURRENT_USER"), nullable=False, comment="Whose vectors these are"
    )
    op.add_column("vectors", owner, schema="neural")
    op.drop_constraint("vectors_pkey", "vectors", schema="neural")
    columns = ["owner", "encoder", "revision", "hash"]
    op.create_primary_key(op.f("vectors_pkey"), "vectors", columns, schema="neural")


def policies() -> None:
    op.execute("CREATE OR REPLACE VIEW neural.known_spaces AS SELECT id FROM neural.spaces")
    op.execute("GRANT USAGE ON SCHEMA neural TO PUBLIC")
    for table in (*OF_SOURCES, "spaces", "vectors"):
        op.execute(f"ALTER TABLE neural.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY seen ON neural.spaces FOR SELECT USING ({SEES} OR {WRITES} OR {WORKS})")
    op.execute(f"CREATE POLICY own ON neural.spaces USING ({OWNS}) WITH CHECK ({OWNS})")
    op.execute(f"CREATE POLICY written ON neural.spaces FOR UPDATE USING ({WRITES} OR {WORKS})")
    for table in OF_SOURCES:
        op.execute(f"CREATE POLICY seen ON neural.{table} FOR SELECT USING ({OF_SEEN})")
        op.execute(f"CREATE POLICY own ON neural.{table} USING ({OF_OWN}) WITH CHECK ({OF_OWN})")
    op.execute("ALTER TABLE neural.work ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY seen ON neural.work FOR SELECT USING ({OF_SEEN})")
    op.execute(f"CREATE POLICY own ON neural.work USING ({WORKS}) WITH CHECK ({WORKS})")
    op.execute(f"CREATE POLICY noted ON neural.changes FOR INSERT WITH CHECK ({NOTABLE})")
    for command in ("SELECT", "DELETE"):  # workers remove what nobody has asked for in weeks
        old = f"{WORKS} AND used_on < current_date - 7"
        op.execute(f"CREATE POLICY old_{command.lower()} ON neural.vectors FOR {command} USING ({old})")
    op.execute("CREATE POLICY own ON neural.vectors USING (owner = CURRENT_USER) WITH CHECK (owner = CURRENT_USER)")
    op.execute("GRANT SELECT, UPDATE, DELETE ON neural.spaces TO PUBLIC")
    op.execute(
        "GRANT SELECT, DELETE, INSERT (space_id, keys, rows, changed_at, changed_by), UPDATE (rows)"
        " ON neural.changes TO PUBLIC"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(EVERYBODYS)} TO PUBLIC")
    op.execute("GRANT SELECT ON neural.work, neural.sql_files, neural.alembic_version TO PUBLIC")


def downgrade() -> None:
    tables = ["neural.spaces", "neural.changes", "neural.work", "neural.sql_files", "neural.alembic_version"]
    op.execute(f"REVOKE ALL ON {', '.join([*tables, *EVERYBODYS])} FROM PUBLIC")
    op.execute("REVOKE USAGE ON SCHEMA neural FROM PUBLIC")
    for table in (*OF_SOURCES, "spaces", "vectors", "work"):
        for policy in ("seen", "own", "written", "noted", "old_select", "old_delete"):
            op.execute(f"DROP POLICY IF EXISTS {policy} ON neural.{table}")
        op.execute(f"ALTER TABLE neural.{table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP VIEW IF EXISTS neural.known_spaces")
    op.execute("DROP TRIGGER IF EXISTS guard_space ON neural.spaces")
    op.execute("TRUNCATE neural.vectors")
    op.drop_constraint("vectors_pkey", "vectors", schema="neural")
    op.drop_column("vectors", "owner", schema="neural")
    op.create_primary_key(op.f("vectors_pkey"), "vectors", ["encoder", "revision", "hash"], schema="neural")
    for column in ("reconciled", "problem", "fields", "relation"):
        op.drop_column("spaces", column, schema="neural")
