-- Triggers on tables of the user's own, and the owner, rights and row-level security that what is kept of them has from them.

CREATE OR REPLACE FUNCTION neural.watch_table(
    relation regclass, chunk_table text, schema text, columns text[], path name[] DEFAULT current_schemas(false)
)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    event record;
    spaces bigint[] := neural.spaces_of(relation, chunk_table, schema, path);
    search_tables text[] := neural.tables_of(spaces);
    equal text[] := (SELECT neural.equality(s.relation) FROM neural.spaces s WHERE s.id = spaces[1]);
    name text;
    fires "char";
BEGIN
    IF spaces = '{}' THEN
        RAISE EXCEPTION 'no search has the chunk table %', concat_ws('.', nullif(schema, ''), chunk_table)
        USING ERRCODE = 'PN404', HINT = 'Its source is not in the schema of this table; name the schema, or put it on the path.';
    END IF;
    FOR event IN
        SELECT part.name AS part, e.* FROM neural.table_tree(relation) AS part(name),
               (VALUES ('INSERT', 'REFERENCING NEW TABLE AS new_rows'), ('DELETE', 'REFERENCING OLD TABLE AS old_rows'),
                       ('UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'), ('TRUNCATE', ''))
               AS e(kind, referencing)
    LOOP
        name := chunk_table || '_' || lower(event.kind);
        fires := (SELECT t.tgenabled FROM pg_catalog.pg_trigger t WHERE t.tgrelid = event.part AND t.tgname = name);
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT
                        EXECUTE FUNCTION neural.note_changes(%L, %L, %L, %L, %L, %L)',
                       name, event.kind, event.part, event.referencing, chunk_table, schema, columns, spaces, search_tables, equal);
        IF fires <> 'O' THEN  -- somebody has turned it off, or has it fire for what is replicated
            EXECUTE format('ALTER TABLE %s %s TRIGGER %I', event.part,
                           CASE fires WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, name);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.watch_table(regclass, text, text, text[], name[]) IS
'Has the changes of a table, and of its partitions, noted for the search of a chunk table; see note_changes';

CREATE OR REPLACE FUNCTION neural.noting_triggers(
    OUT relation regclass, OUT name text, OUT chunk_table text, OUT schema text, OUT columns text[], OUT spaces bigint[],
    OUT search_tables text[], OUT equal text[], OUT enabled boolean
)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.tgrelid::regclass, t.tgname, a.arguments[1], a.arguments[2], a.arguments[3]::text[], a.arguments[4]::bigint[], a.arguments[5]::text[],
           a.arguments[6]::text[], t.tgenabled <> 'D'
      FROM pg_catalog.pg_trigger t
     CROSS JOIN LATERAL (
           SELECT array_agg(convert_from(decode(part, 'escape'), getdatabaseencoding()) ORDER BY place)
                      FILTER (WHERE place <= t.tgnargs) AS arguments
             FROM unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) WITH ORDINALITY AS p(part, place)) a
     WHERE t.tgfoid = 'neural.note_changes()'::regprocedure
$$;

COMMENT ON FUNCTION neural.noting_triggers() IS 'The triggers that note changes, with their arguments';

CREATE OR REPLACE FUNCTION neural.watched_tables(space bigint)
RETURNS TABLE (relation regclass, columns text[])
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(CASE WHEN w.name = s.source THEN s.relation END, c.oid::regclass),
           ARRAY(SELECT jsonb_array_elements_text(w.columns))
      FROM neural.spaces s
     CROSS JOIN LATERAL jsonb_each(s.watched) AS w(name, columns)
     CROSS JOIN LATERAL (SELECT (parse_ident(s.source))[1] AS schema) own
      LEFT JOIN pg_namespace n ON n.nspname = own.schema
      LEFT JOIN pg_class c ON c.relnamespace = n.oid
           AND c.relname = CASE WHEN starts_with(w.name, own.schema || '.') THEN substr(w.name, length(own.schema) + 2) ELSE w.name END
     WHERE s.id = space AND s.source <> 'neural.documents'
$$;

COMMENT ON FUNCTION neural.watched_tables(bigint) IS
'The tables whose changes a space has to know, each with the columns that count; NULL where a table is gone';

CREATE OR REPLACE FUNCTION neural.rebuild_triggers(space bigint)
RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '500ms'  -- less than deadlock_timeout: no writer is cancelled
AS $$
DECLARE
    watched record;
    named record;
    s neural.spaces;
BEGIN
    SELECT * INTO s FROM neural.spaces WHERE id = space;
    SELECT t.chunk_table, t.schema INTO named FROM neural.noting_triggers() t  -- they keep the name that they have
     WHERE t.spaces && ARRAY(SELECT e.id FROM neural.spaces e WHERE e.relation = s.relation AND e.attribute = s.attribute) LIMIT 1;
    FOR watched IN SELECT * FROM neural.watched_tables(space) w WHERE w.relation IS NOT NULL LOOP
        PERFORM neural.watch_table(watched.relation, coalesce(named.chunk_table, (parse_ident(s.source))[2] || '_' || s.attribute),
                                   coalesce(named.schema, (parse_ident(s.source))[1]), watched.columns);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.rebuild_triggers(bigint) IS
'Makes the triggers of the search of a space anew, so that they know all of its spaces. It waits for who is writing, so that
nobody writes what one of them is not told; not long where several tables are watched';

CREATE OR REPLACE FUNCTION neural.unwatch_spaces(spaces bigint[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    noting record;
BEGIN
    FOR noting IN SELECT t.name, t.relation FROM neural.noting_triggers() t WHERE t.spaces && unwatch_spaces.spaces LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', noting.name, noting.relation);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.unwatch_spaces(bigint[]) IS 'Drops the triggers that note for any of these spaces, wherever they are by now';

CREATE OR REPLACE FUNCTION neural.unwatch_table(chunk_table text, schema text, path name[] DEFAULT current_schemas(false))
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    noting record;
BEGIN
    FOR noting IN
        SELECT t.name, t.relation FROM neural.noting_triggers() t JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE t.chunk_table = unwatch_table.chunk_table
           AND CASE WHEN unwatch_table.schema <> '' THEN unwatch_table.schema IN (t.schema, c.relnamespace::regnamespace::name)
                    ELSE c.relnamespace IN (SELECT to_regnamespace(quote_ident(p)) FROM unnest(path) p) END
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', noting.name, noting.relation);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.unwatch_table(text, text, name[]) IS
'The reverse of watch_table, wherever the triggers are by now; where no schema is named, in those of the caller''s path';

CREATE OR REPLACE FUNCTION neural.follow_row_security(search_table regclass, source regclass)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    secured record;
    visible text;
BEGIN
    SELECT relrowsecurity AS enabled, relforcerowsecurity AS forced INTO secured FROM pg_catalog.pg_class WHERE oid = source;
    IF EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = search_table AND p.polname = 'as_its_source') THEN
        EXECUTE format('DROP POLICY as_its_source ON %s', search_table);
    END IF;
    IF secured.enabled THEN
        SELECT string_agg(format('s.%I OPERATOR(%s) %s.%I', k.name, k.equal, search_table, 'source_' || k.name), ' AND ') INTO visible
          FROM unnest(neural.key_columns(source), neural.equality(source)) AS k(name, equal);
        -- a plain subquery and not EXISTS, which might be computed for the whole source at once
        EXECUTE format('CREATE POLICY as_its_source ON %s USING ((SELECT true FROM %s s WHERE %s))', search_table, source, visible);
    END IF;
    EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', search_table, CASE WHEN secured.enabled THEN 'ENABLE' ELSE 'DISABLE' END);
    EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', search_table, CASE WHEN secured.forced THEN 'FORCE' ELSE 'NO FORCE' END);
END
$$;

COMMENT ON FUNCTION neural.follow_row_security(regclass, regclass) IS
'Gives a table of chunks or words the row-level security of its source: a row is as visible as that which it was made of';

CREATE OR REPLACE FUNCTION neural.require_search_table(search_table regclass, source regclass)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN  -- of one owner there is nothing to be gained
    IF (SELECT relowner FROM pg_catalog.pg_class WHERE oid = source) = (SELECT relowner FROM pg_catalog.pg_class WHERE oid = search_table) THEN
        RETURN;
    ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = search_table AND a.attname IN ('embedding', 'lexemes') AND a.attnum > 0)
          OR EXISTS (SELECT FROM neural.spaces o JOIN pg_catalog.pg_class c ON c.oid = search_table
                        AND c.relname IN (o.chunk_table, o.chunk_table || '_terms')
                        AND c.relnamespace = to_regnamespace(quote_ident((parse_ident(o.source))[1]))
                      WHERE o.relation IS DISTINCT FROM require_search_table.source) THEN
        RAISE EXCEPTION 'table % is in the catalog as one of search tables of %, but is none', search_table, source
        USING ERRCODE = 'insufficient_privilege', HINT = 'Correct neural.spaces.chunk_table.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.require_search_table(regclass, regclass) IS
'Refuses a table of chunks, words or vectors, whose name the owner of its source may write into the catalog, where it belongs to
somebody else and does not look like such a table, or another search has it';

CREATE OR REPLACE FUNCTION neural.follow_source(search_table regclass, source regclass)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    owner regrole := (SELECT relowner FROM pg_catalog.pg_class WHERE oid = source);
    privilege record;
BEGIN
    PERFORM neural.require_search_table(search_table, source);
    IF owner <> (SELECT relowner FROM pg_catalog.pg_class WHERE oid = search_table) THEN  -- workers act as the owner of the source
        EXECUTE format('ALTER TABLE %s OWNER TO %s', search_table, owner);
    END IF;
    PERFORM neural.follow_row_security(search_table, source);
    FOR privilege IN SELECT * FROM neural.lacking(search_table, source) LOOP
        EXECUTE format('%s %s ON %s %s %s', privilege.verb, privilege.privileges, search_table,
                       CASE privilege.verb WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END, privilege.grantee);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.follow_source(regclass, regclass) IS
'Makes a table of chunks or words as visible as its source: the same owner, the same row-level security, and the same grants.
Who reads the source reads what is made of it, who deletes from the one deletes from the other; writing it besides is for
those to whom neural.grant_application has given that';

CREATE OR REPLACE FUNCTION neural.lacking(search_table regclass, source regclass)
RETURNS TABLE (verb text, privileges text, grantee text)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH granted AS (
        SELECT a.grantee, a.privilege_type AS privilege FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = source AND a.grantee <> c.relowner
    ), wanted AS (
        SELECT g.grantee, g.privilege FROM granted g WHERE g.privilege IN ('SELECT', 'DELETE')
        UNION  -- who encodes by itself what it may write
        SELECT g.grantee, p.privilege
          FROM granted g, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
         WHERE g.privilege IN ('INSERT', 'UPDATE') AND g.grantee <> 0
           AND EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'neural.pending'::regclass
                          AND a.grantee = g.grantee AND a.privilege_type = 'INSERT')
        UNION  -- workers, of what a superuser owns: they act as any other owner
        SELECT a.grantee, p.privilege
          FROM pg_class c, aclexplode(c.relacl) a, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
         WHERE c.oid = 'neural.workers'::regclass AND a.privilege_type = 'INSERT' AND a.grantee NOT IN (0, c.relowner)
           AND (SELECT r.rolsuper FROM pg_class k JOIN pg_roles r ON r.oid = k.relowner WHERE k.oid = search_table)
    ), has AS (
        SELECT a.grantee, a.privilege_type AS privilege FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = search_table AND a.grantee <> c.relowner
           AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    ), differing AS (
        SELECT 'GRANT' AS verb, * FROM (TABLE wanted EXCEPT TABLE has) missing
        UNION ALL SELECT 'REVOKE', * FROM (TABLE has EXCEPT TABLE wanted) beyond
    )
    SELECT d.verb, string_agg(d.privilege, ', ' ORDER BY d.privilege),
           CASE d.grantee WHEN 0 THEN 'PUBLIC' ELSE d.grantee::regrole::text END
      FROM differing d GROUP BY d.verb, d.grantee
$$;

COMMENT ON FUNCTION neural.lacking(regclass, regclass) IS
'The grants by which a table of chunks or words differs from its source: what is to be granted, and what to be taken back';
