-- What each kind of role needs, and no more. None of them is a superuser, owns anything of ours, or may create anything.
-- Rows of the catalog need no grants: they are seen by who may see the source, and changed by who owns or writes it.

CREATE OR REPLACE FUNCTION neural.follow_grants()
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT to_regclass(t.name) AS search_table, s.relation FROM neural.spaces s, neural.space_tables(s.id) k, unnest(ARRAY[k.chunks, k.terms]) AS t(name)
         WHERE s.kind = 'dense' AND to_regclass(t.name) IS NOT NULL AND EXISTS (SELECT FROM neural.lacking(to_regclass(t.name), s.relation))
        UNION ALL
        SELECT to_regclass(t.name), s.relation FROM neural.spaces s, neural.extra_tables(s.id) AS t(name)
         WHERE to_regclass(t.name) IS NOT NULL AND EXISTS (SELECT FROM neural.lacking(to_regclass(t.name), s.relation))
    LOOP
        IF pg_has_role((SELECT relowner FROM pg_catalog.pg_class WHERE oid = item.search_table), 'USAGE') THEN
            BEGIN
                PERFORM neural.follow_source(item.search_table, item.relation);
            EXCEPTION WHEN insufficient_privilege THEN  -- what one owner has written must not keep others from their grants
                RAISE WARNING '%', SQLERRM;
            END;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.follow_grants() IS
'Gives tables of chunks and words the grants of their sources, as far as they are the caller''s own';

CREATE OR REPLACE FUNCTION neural.grant_reader(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := CASE lower(role) WHEN 'public' THEN 'PUBLIC' ELSE role::regrole::text END;
    collection record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA neural TO %s', grantee);
    EXECUTE format('GRANT SELECT ON neural.documents TO %s', grantee);
    FOR collection IN SELECT s.attribute AS name FROM neural.spaces s
                       WHERE s.source = 'neural.documents' AND s.kind = 'dense' AND s.state = 'serving' LOOP
        EXECUTE format('GRANT SELECT ON neural.%I TO %s', collection.name, grantee);
    END LOOP;
    PERFORM neural.follow_grants();
END
$$;

COMMENT ON FUNCTION neural.grant_reader(text) IS
'Lets a role search all collections, and your tables on which it has SELECT';

CREATE OR REPLACE FUNCTION neural.grant_application(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := CASE lower(role) WHEN 'public' THEN 'PUBLIC' ELSE role::regrole::text END;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA neural TO %s', grantee);
    EXECUTE format('GRANT INSERT ON neural.pending TO %s', grantee);  -- follow_source knows applications by this
    PERFORM neural.follow_grants();
END
$$;

COMMENT ON FUNCTION neural.grant_application(text) IS
'Lets a role encode by itself what it may write (sync, inline). One that only writes rows, and leaves encoding to workers, needs
none of it: triggers note what it writes';

CREATE OR REPLACE FUNCTION neural.grant_owner(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := role::regrole::text;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA neural TO %s', grantee);
    EXECUTE format('GRANT INSERT ON neural.spaces TO %s', grantee);
    EXECUTE format('GRANT EXECUTE ON FUNCTION neural.note_changes(), neural.count_terms() TO %s', grantee);
END
$$;

COMMENT ON FUNCTION neural.grant_owner(text) IS
'Lets a role make searches of tables that it owns: neural.watch, op.create_search and spaces of them';

CREATE OR REPLACE FUNCTION neural.grant_worker(role text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    grantee text := role::regrole::text;
    source record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA neural TO %s', grantee);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON neural.workers, neural.work TO %s', grantee);
    FOR source IN
        SELECT DISTINCT w.relation, c.relowner::regrole AS owner, c.relnamespace::regnamespace AS schema, o.rolsuper
          FROM neural.spaces s
         CROSS JOIN LATERAL (SELECT s.relation UNION SELECT t.relation FROM neural.watched_tables(s.id) t) w
          JOIN pg_catalog.pg_class c ON c.oid = w.relation JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
         WHERE s.kind = 'dense'
    LOOP
        IF NOT source.rolsuper THEN  -- it acts as the owner
            IF source.owner <> role::regrole AND NOT pg_has_role(role, source.owner, 'MEMBER') THEN
                EXECUTE format('GRANT %s TO %s', source.owner, grantee);
            END IF;
        ELSE  -- nobody becomes a superuser for this: of his tables it reads what is searchable, and no more
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', source.schema, grantee);
            EXECUTE format('GRANT SELECT ON %s TO %s', source.relation, grantee);
        END IF;
    END LOOP;
    PERFORM neural.follow_grants();
END
$$;

COMMENT ON FUNCTION neural.grant_worker(text) IS
'Lets a role run pgneural worker. It acts on each table as the owner of the table, so it becomes a member of these roles;
of tables of a superuser it may read what is searchable, and write chunks and words';

CREATE OR REPLACE FUNCTION neural.working_role(source regclass)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner record;
BEGIN
    SELECT o.oid, o.rolname, o.rolsuper INTO owner FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = source;
    IF owner.rolname IS NULL OR owner.rolname = current_user THEN
        RETURN NULL;
    ELSIF pg_has_role(current_user, owner.oid, CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)
          AND (NOT owner.rolsuper OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)) THEN
        RETURN owner.rolname;
    ELSIF owner.rolsuper THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'role % may not act as %, who owns table %', current_user, owner.rolname, source
    USING ERRCODE = 'insufficient_privilege',
          HINT = format('Run: GRANT %I TO %I', owner.rolname, current_user);
END
$$;

COMMENT ON FUNCTION neural.working_role(regclass) IS
'The role that a worker takes on for a table: its owner; NULL where it stays what it is, because it is that already or because a
superuser owns the table';

CREATE OR REPLACE FUNCTION neural.work_as_owner(space bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role text := (SELECT neural.working_role(s.relation) FROM neural.spaces s WHERE s.id = space);
    hidden regclass;
BEGIN
    IF role IS NOT NULL THEN
        PERFORM set_config('role', role, true);
    END IF;
    SELECT t.relation INTO hidden  -- a row that is not seen would be taken for deleted
      FROM (SELECT s.relation FROM neural.spaces s WHERE s.id = space UNION SELECT w.relation FROM neural.watched_tables(space) w) t
     WHERE t.relation IS NOT NULL AND row_security_active(t.relation) LIMIT 1;
    IF hidden IS NOT NULL THEN
        RAISE EXCEPTION 'row-level security may hide rows of table % from role %', hidden, current_user
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Let the worker act as the owner, without FORCE ROW LEVEL SECURITY, or as a role with BYPASSRLS.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.work_as_owner(bigint) IS
'Makes the rest of the transaction that of the owner of a source, and makes sure that it sees all rows: for workers';
