"""No foreign key from what was noted to spaces: writers with an older snapshot would be refused.

And what 0005 should have done: who searches or encodes may read and write the tables of the queue, and nothing is lost
on the way back.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = "changes_space_id_fkey"

GRANT_RIGHTS = """
DO $$
DECLARE
    known record;
BEGIN
    FOR known IN  -- who counts words encodes; who reads the counts searches
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role,
               bool_or(a.privilege_type = 'INSERT') AS writes
          FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = 'neural.term_counts'::regclass AND a.grantee <> c.relowner GROUP BY 1
    LOOP
        EXECUTE format('GRANT SELECT ON neural.changes, neural.pending, neural.failed TO %s', known.role);
        IF known.writes THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON neural.changes, neural.pending, neural.failed,
                            neural.vectors TO %s', known.role);
        END IF;
    END LOOP;
END
$$"""

REFUSE = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM neural.spaces WHERE kind = 'dense' GROUP BY source, attribute HAVING count(*) > 1)
       OR EXISTS (SELECT FROM neural.spaces
                   WHERE kind = 'dense' AND name <> 'main' AND source = 'neural.documents') THEN
        RAISE EXCEPTION 'a search has several spaces, or its model was changed, which earlier versions do not know'
        USING HINT = 'Drop the spaces that do not serve, and index such collections anew, first.';
    END IF;
END
$$"""


def upgrade() -> None:
    op.drop_constraint(KEY, "changes", schema="neural")
    op.alter_column("changes", "space_id", comment="No foreign key: see neural.forget_changes", schema="neural")
    op.execute(GRANT_RIGHTS)


def downgrade() -> None:
    op.execute(REFUSE)
    op.execute(
        "INSERT INTO neural.changes (space_id, keys, rows) SELECT space_id, jsonb_agg(key), count(*) FROM"
        " (SELECT space_id, key FROM neural.pending UNION SELECT space_id, key FROM neural.failed) p GROUP BY space_id"
    )
    op.execute("DROP TRIGGER IF EXISTS forget_changes ON neural.spaces")
    op.execute("DELETE FROM neural.changes c WHERE NOT EXISTS (SELECT FROM neural.spaces s WHERE s.id = c.space_id)")
    columns = {"local_cols": ["space_id"], "remote_cols": ["id"]}
    op.create_foreign_key(
        op.f(KEY), "changes", "spaces", **columns, ondelete="CASCADE", source_schema="neural", referent_schema="neural"
    )
    op.alter_column("changes", "space_id", comment=None, existing_comment="", schema="neural")
