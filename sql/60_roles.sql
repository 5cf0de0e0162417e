-- What each kind of role needs, and no more. None of them is a superuser, owns anything, or may create anything.

CREATE OR REPLACE FUNCTION neural.grant_reader(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := CASE lower(role) WHEN 'public' THEN 'PUBLIC' ELSE role::regrole::text END;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA neural TO %s', grantee);
    EXECUTE format('GRANT SELECT ON neural.spaces, neural.term_counts, neural.corpus_counts, neural.status, neural.changes,
                    neural.pending, neural.failed, neural.work TO %s', grantee);
END
$$;

COMMENT ON FUNCTION neural.grant_reader(text) IS
'Lets a role search: it needs SELECT on your tables besides, and gets it on their chunks with them (neural.follow_source)';

CREATE OR REPLACE FUNCTION neural.grant_application(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := CASE lower(role) WHEN 'public' THEN 'PUBLIC' ELSE role::regrole::text END;
BEGIN
    PERFORM neural.grant_reader(role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON neural.changes, neural.pending, neural.failed, neural.vectors,
                    neural.term_counts, neural.corpus_counts TO %s', grantee);
    EXECUTE format('GRANT UPDATE (revision, mean_length) ON neural.spaces TO %s', grantee);
END
$$;

COMMENT ON FUNCTION neural.grant_application(text) IS
'Lets a role search and encode by itself (sync, inline). One that only writes rows, and leaves encoding to workers, needs none
of it: triggers note what it writes';

CREATE OR REPLACE FUNCTION neural.grant_worker(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := role::regrole::text;
    space record;
BEGIN
    PERFORM neural.grant_application(role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON neural.workers, neural.work TO %s', grantee);
    EXECUTE format('GRANT UPDATE (resumes_at) ON neural.spaces TO %s', grantee);
    EXECUTE format('GRANT SELECT ON neural.alembic_version, neural.sql_files, neural.documents TO %s', grantee);
    FOR space IN
        SELECT s.source, w.name AS watched, k.chunks, k.terms, (parse_ident(s.source))[1] AS schema
          FROM neural.spaces s CROSS JOIN LATERAL neural.kept_tables(s.id) k
          LEFT JOIN LATERAL jsonb_object_keys(s.watched) AS w(name) ON true
         WHERE s.kind = 'dense' AND s.reads IS NOT NULL
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', space.schema, grantee);
        EXECUTE format('GRANT SELECT ON %s TO %s', space.source, grantee);
        IF to_regclass(space.watched) IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO %s', to_regclass(space.watched), grantee);
        END IF;
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s', space.terms, grantee);
        IF space.chunks IS NOT NULL THEN
            EXECUTE format('GRANT SELECT, INSERT, DELETE ON %s TO %s', space.chunks, grantee);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.grant_worker(text) IS
'Lets a role run pgneural worker: read what is searchable, write chunks and words, nothing else. Searches and
spaces that are made later are granted, too; a space that the worker is to index has to be its own';
