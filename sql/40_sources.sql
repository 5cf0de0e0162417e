-- Tables of the user's own as sources: which space belongs to one, and which of its rows are pending.
-- `op.create_search` and `MetaData.create_all` call these (store/declared.py), the ORM's searches call space_id.

CREATE OR REPLACE FUNCTION neural.qualified(relation regclass)
RETURNS text
LANGUAGE sql STABLE STRICT
AS $$
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;

COMMENT ON FUNCTION neural.qualified(regclass) IS
'The name of a table with its schema, whatever the search_path: as neural.spaces records it';

CREATE OR REPLACE FUNCTION neural.space_id(source regclass, attribute text, revision text)
RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    space record;
BEGIN
    SELECT s.id, s.encoder, s.revision INTO space FROM neural.spaces s
     WHERE s.source = neural.qualified(space_id.source) AND s.attribute = space_id.attribute AND s.kind = 'dense' AND s.state = 'serving';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no search %', source, attribute
        USING ERRCODE = 'PN404', HINT = 'Upgrade the database: its migrations make it with op.create_search.';
    ELSIF revision IS DISTINCT FROM space.revision AND space.revision <> '' AND revision <> '' THEN
        RAISE EXCEPTION 'the vectors of %.% were made by % revision %, but the query by revision %',
                        source, attribute, space.encoder, space.revision, revision
        USING ERRCODE = 'PN409',
              HINT = 'Use the model files that made the vectors, or make the search anew.';
    END IF;
    RETURN space.id;
END
$$;

COMMENT ON FUNCTION neural.space_id(regclass, text, text) IS
'The space of a search of a table; an error where there is none, or where another revision of its encoder made the
vectors, so that a vector of another space never gives a wrong answer. An empty revision goes with any';

CREATE OR REPLACE FUNCTION neural.answering(source regclass, attribute text, chunk_table text, revision text, strict boolean)
RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    space record;
BEGIN
    SELECT s.id, s.encoder, s.revision, s.state INTO space FROM neural.spaces s
     WHERE s.source = neural.qualified(answering.source) AND s.attribute = answering.attribute AND s.kind = 'dense'
       AND s.chunk_table = answering.chunk_table;
    IF FOUND AND (space.state = 'serving' OR NOT strict)
       AND (revision = space.revision OR space.revision = '' OR revision = '') THEN
        RETURN space.id;
    ELSIF strict THEN
        RETURN NULL;
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no search % in %', source, attribute, chunk_table
        USING ERRCODE = 'PN404', HINT = 'Upgrade the database, or build the statement anew after a switch.';
    END IF;
    RAISE EXCEPTION 'the vectors of %.% were made by % revision %, but the query by revision %',
                    source, attribute, space.encoder, space.revision, revision
    USING ERRCODE = 'PN409', HINT = 'Use the model files that made the vectors, or build the statement anew after a switch.';
END
$$;

COMMENT ON FUNCTION neural.answering(regclass, text, text, text, boolean) IS
'The space whose chunks a statement reads. Strict: NULL where it does not serve, or another revision made its vectors, so
that the client asks again; otherwise an error where it is gone or of another revision, so that a vector of another space
never gives a wrong answer. An empty revision goes with any';

CREATE OR REPLACE FUNCTION neural.key_columns(relation regclass)
RETURNS text[]
LANGUAGE plpgsql STABLE STRICT
AS $$
DECLARE
    number smallint;
    name text;
    names text[];
BEGIN  -- one by one: the triggers ask at every statement, and starting a join costs more than these look-ups
    FOREACH number IN ARRAY coalesce((SELECT i.indkey::smallint[] FROM pg_catalog.pg_index i
                                       WHERE i.indrelid = relation AND i.indisprimary), '{}') LOOP
        SELECT a.attname INTO name FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attnum = number;
        names := names || name;
    END LOOP;
    RETURN names;
END
$$;

COMMENT ON FUNCTION neural.key_columns(regclass) IS 'The columns of the primary key of a table, in order';

CREATE OR REPLACE FUNCTION neural.wake()
RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_notify('neural_changes', '') WHERE current_setting('pgneural.notify', true) IS DISTINCT FROM 'off'
$$;

COMMENT ON FUNCTION neural.wake() IS
'Wakes the workers. SET pgneural.notify = off for transactions that are prepared (two-phase commit), which must not notify:
workers then find what changed when they look by themselves, every five seconds';

-- keys are the same text whatever a session has set
CREATE OR REPLACE FUNCTION neural.mark_all(space bigint, source regclass)
RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    keys text := (SELECT string_agg(format('s.%I', k), ', ') FROM unnest(neural.key_columns(source)) k);
BEGIN
    IF pg_trigger_depth() = 0 AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
       AND NOT EXISTS (SELECT FROM pg_attribute a  -- a table of this transaction has no rows of others
                        WHERE a.attrelid = source AND a.attnum = -1 AND age(a.xmin) <= age(pg_current_xact_id()::xid)) THEN
        RAISE EXCEPTION 'this transaction is %, and may not see rows that others have just written',
                        upper(current_setting('transaction_isolation'))
        USING ERRCODE = 'PN400', HINT = 'Make searches and spaces in a READ COMMITTED transaction.';
    END IF;
    EXECUTE format('INSERT INTO neural.changes (space_id, keys, rows)
                    SELECT %s, jsonb_agg(key), count(*)
                      FROM (SELECT jsonb_build_array(%s) AS key, (row_number() OVER () - 1) / 1000 AS slice FROM %s s %s) k
                     GROUP BY slice', space, keys, source,
                   CASE WHEN source = 'neural.documents'::regclass
                        THEN format('WHERE s.collection = %L', (SELECT attribute FROM neural.spaces WHERE id = space)) ELSE '' END);
    PERFORM neural.wake();
END
$$;

COMMENT ON FUNCTION neural.mark_all(bigint, regclass) IS
'Notes that all rows of a source are to be encoded; what is already right is not encoded again';

CREATE OR REPLACE FUNCTION neural.note_changes()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET work_mem = '32MB' SET plan_cache_mode = 'force_generic_plan'
AS $$
DECLARE
    spaces bigint[] := TG_ARGV[3];  -- not from the catalog, which an old snapshot does not show as it is now
    watched text[] := TG_ARGV[2];
    names text[] := coalesce(neural.key_columns(TG_RELID),  -- of a table that inherits without it, that of its parent
                             (SELECT neural.key_columns(inhparent) FROM pg_inherits WHERE inhrelid = TG_RELID LIMIT 1));
    key text;
    known text[];
    col text;
    kept record;
    hash text := '0';
    changed text := CASE TG_OP WHEN 'DELETE' THEN 'old_rows n' ELSE 'new_rows n' END;
    noted jsonb;
    number bigint;
BEGIN
    IF spaces IS NULL THEN  -- a trigger of version 0005 or before
        spaces := neural.spaces_of(TG_RELID, TG_ARGV[0], TG_ARGV[1]);
    END IF;
    IF names IS NULL THEN
        RAISE WARNING 'table % has no primary key, so what changes there is not searchable', TG_RELID::regclass;
        RETURN NULL;
    ELSIF TG_OP = 'TRUNCATE' THEN  -- of one partition: what was made of the others is gone with it
        PERFORM neural.mark_all(id, (SELECT s.source::regclass FROM neural.spaces s WHERE s.id = ANY (spaces) LIMIT 1))
           FROM unnest(spaces) id;
        RETURN NULL;
    ELSIF TG_OP IN ('DELETE', 'UPDATE') THEN
        FOR kept IN  -- of tables that inherit: there is no foreign key that would do this
            SELECT name FROM pg_class c, unnest(spaces) s, neural.kept_tables(s) k, unnest(ARRAY[k.chunks, k.terms]) AS name
             WHERE c.oid = TG_RELID AND c.relkind = 'r' AND NOT c.relispartition AND name IS NOT NULL
               AND (c.relhassubclass OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid))
        LOOP
            EXECUTE format('DELETE FROM %s t USING old_rows o WHERE %s', kept.name,
                           (SELECT string_agg(format('t.%I = o.%I', 'source_' || k, k), ' AND ') FROM unnest(names) k))
                    || CASE TG_OP WHEN 'UPDATE' THEN format(' AND NOT EXISTS (SELECT FROM new_rows n WHERE %s)',
                           (SELECT string_agg(format('n.%1$I = o.%1$I', k), ' AND ') FROM unnest(names) k)) ELSE '' END;
        END LOOP;
    END IF;
    key := (SELECT string_agg(format('n.%I', k), ', ') FROM unnest(names) k);
    IF TG_OP = 'UPDATE' THEN
        known := ARRAY(SELECT a.attname::text FROM pg_attribute a
                        WHERE a.attrelid = TG_RELID AND a.attname = ANY (watched) AND NOT a.attisdropped);
        IF cardinality(known) = cardinality(watched) THEN  -- else one was renamed: any update counts
            FOREACH col IN ARRAY known LOOP  -- hashes, not whole rows: what is compared stays small
                hash := format('hashtextextended(coalesce(n.%I::text, ''\x01 null''), %s)', col, hash);
            END LOOP;
            changed := format('(SELECT %1$s, %2$s AS "its hash" FROM new_rows n EXCEPT ALL SELECT %1$s, %2$s FROM old_rows n) n', key, hash);
        END IF;
    END IF;
    EXECUTE format('SELECT jsonb_agg(jsonb_build_array(%s)), count(*) FROM %s', key, changed) INTO noted, number;
    IF number = 0 THEN
        RETURN NULL;
    END IF;
    INSERT INTO neural.changes (space_id, keys, rows) SELECT id, noted, number FROM unnest(spaces) id;
    IF current_setting('pgneural.noted', true) IS DISTINCT FROM pg_current_xact_id()::text THEN  -- the first of a transaction
        PERFORM set_config('pgneural.noted', pg_current_xact_id()::text, true);
        IF NOT EXISTS (SELECT FROM neural.changes WHERE space_id = spaces[1]
                          AND changed_by <> pg_current_xact_id()::text::bigint) THEN
            PERFORM neural.wake();  -- else workers are awake, and look again before they sleep
        END IF;
    END IF;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION neural.note_changes() FROM PUBLIC;  -- who makes a trigger of it says what it writes to

COMMENT ON FUNCTION neural.note_changes() IS
'Trigger of a source: notes inserted and deleted rows, and those of which a watched column changed. Arguments: the chunk
table, its schema or an empty text for that of the source, the watched columns and the ids of the spaces as arrays';

CREATE OR REPLACE FUNCTION neural.spaces_of(relation regclass, chunk_table text, schema text)
RETURNS bigint[]
LANGUAGE sql STABLE
AS $$
    WITH likely AS (  -- where no schema is named, that of the table, or else the first of the path
        SELECT schema AS name, 0 AS place WHERE schema <> ''
         UNION ALL
        SELECT n.nspname, 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = relation AND schema = ''
         UNION ALL
        SELECT name, 1 + place FROM unnest(current_schemas(false)) WITH ORDINALITY AS path(name, place) WHERE schema = ''
    ), own AS (
        SELECT s.source, s.attribute FROM neural.spaces s JOIN likely l ON (parse_ident(s.source))[1] = l.name
         WHERE s.chunk_table = spaces_of.chunk_table AND s.kind = 'dense' ORDER BY l.place LIMIT 1
    )
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}') FROM neural.spaces s JOIN own USING (source, attribute)
     WHERE s.kind = 'dense'
$$;

COMMENT ON FUNCTION neural.spaces_of(regclass, text, text) IS
'The spaces of the search of a table that has this chunk table, with those that are built or kept beside it';

CREATE OR REPLACE FUNCTION neural.table_tree(relation regclass)
RETURNS SETOF regclass
LANGUAGE sql STABLE STRICT
AS $$
    WITH RECURSIVE tree AS (
        SELECT relation AS name UNION SELECT i.inhrelid::regclass FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.name
    )
    SELECT name FROM tree
$$;

COMMENT ON FUNCTION neural.table_tree(regclass) IS 'A table with its partitions, or with the tables that inherit from it';

CREATE OR REPLACE FUNCTION neural.watch_table(relation regclass, chunk_table text, schema text, columns text[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    event record;
    spaces bigint[] := neural.spaces_of(relation, chunk_table, schema);
    fires "char";
BEGIN
    IF spaces = '{}' THEN
        RAISE EXCEPTION 'no search has the chunk table %', concat_ws('.', nullif(schema, ''), chunk_table)
        USING ERRCODE = 'PN404', HINT = 'Its source is not in the schema of this table; name the schema, or put it on the path.';
    END IF;
    FOR event IN
        SELECT part.name, e.* FROM neural.table_tree(relation) AS part(name),
               (VALUES ('INSERT', 'REFERENCING NEW TABLE AS new_rows'), ('DELETE', 'REFERENCING OLD TABLE AS old_rows'),
                       ('UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'), ('TRUNCATE', ''))
               AS e(kind, referencing)
    LOOP
        fires := (SELECT t.tgenabled FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = event.name AND t.tgname = chunk_table || '_' || lower(event.kind));
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT
                        EXECUTE FUNCTION neural.note_changes(%L, %L, %L, %L)',
                       chunk_table || '_' || lower(event.kind), event.kind, event.name, event.referencing, chunk_table, schema,
                       columns, spaces);
        IF fires <> 'O' THEN  -- somebody has turned it off, or has it fire for what is replicated
            EXECUTE format('ALTER TABLE %s %s TRIGGER %I', event.name,
                           CASE fires WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END,
                           chunk_table || '_' || lower(event.kind));
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.watch_table(regclass, text, text, text[]) IS
'Has the changes of a table, and of its partitions, noted for the search of a chunk table; see note_changes';

CREATE OR REPLACE FUNCTION neural.noting_triggers(
    OUT relation regclass, OUT name text, OUT chunk_table text, OUT schema text, OUT columns text[], OUT spaces bigint[]
)
RETURNS SETOF record
LANGUAGE sql STABLE
AS $$
    SELECT t.tgrelid::regclass, t.tgname, a.given[1], a.given[2], a.given[3]::text[], a.given[4]::bigint[]
      FROM pg_catalog.pg_trigger t
     CROSS JOIN LATERAL (
           SELECT array_agg(convert_from(decode(part, 'escape'), 'UTF8') ORDER BY place) FILTER (WHERE place <= t.tgnargs) AS given
             FROM unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) WITH ORDINALITY AS p(part, place)) a
     WHERE t.tgfoid = 'neural.note_changes'::regproc
$$;

COMMENT ON FUNCTION neural.noting_triggers() IS 'The triggers that note changes, with their arguments';

CREATE OR REPLACE FUNCTION neural.watch_again(space bigint)
RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '500ms'  -- less than deadlock_timeout: no writer is cancelled
AS $$
DECLARE
    noting record;
BEGIN
    FOR noting IN
        SELECT DISTINCT t.relation, t.chunk_table, t.schema, t.columns FROM neural.noting_triggers() t
         WHERE space = ANY (neural.spaces_of(t.relation, t.chunk_table, t.schema))
    LOOP
        PERFORM neural.watch_table(noting.relation, noting.chunk_table, noting.schema, noting.columns);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.watch_again(bigint) IS
'Makes the triggers of the search of a space anew, so that they know all of its spaces. It waits for who is writing, so that
nobody writes what one of them is not told; not long where several tables are watched';

CREATE OR REPLACE FUNCTION neural.unwatch_table(chunk_table text, schema text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    noting record;
BEGIN
    FOR noting IN
        SELECT t.tgname, t.tgrelid::regclass AS relation
          FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
         WHERE t.tgfoid = 'neural.note_changes'::regproc AND starts_with(t.tgname, chunk_table || '_')
           AND position(convert_to(chunk_table, 'UTF8') || '\x00'::bytea || convert_to(schema, 'UTF8') || '\x00'::bytea
                        IN t.tgargs) = 1
           AND (schema <> '' OR c.relnamespace IN (SELECT to_regnamespace(quote_ident(s)) FROM unnest(current_schemas(false)) s))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', noting.tgname, noting.relation);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.unwatch_table(text, text) IS
'The reverse of watch_table, wherever the triggers are by now';

CREATE OR REPLACE FUNCTION neural.follow_row_security(kept regclass, source regclass)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    secured record;
    visible text;
BEGIN
    SELECT relrowsecurity AS enabled, relforcerowsecurity AS forced INTO secured FROM pg_catalog.pg_class WHERE oid = source;
    EXECUTE format('DROP POLICY IF EXISTS as_its_source ON %s', kept);
    IF secured.enabled THEN
        SELECT string_agg(format('s.%I = %s.%I', a.attname, kept, 'source_' || a.attname), ' AND ') INTO visible
          FROM pg_catalog.pg_index i, pg_catalog.pg_attribute a
         WHERE i.indrelid = source AND i.indisprimary AND a.attrelid = source AND a.attnum = ANY (i.indkey);
        -- a plain subquery and not EXISTS, which might be computed for the whole source at once
        EXECUTE format('CREATE POLICY as_its_source ON %s USING ((SELECT true FROM %s s WHERE %s))', kept, source, visible);
    END IF;
    EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', kept, CASE WHEN secured.enabled THEN 'ENABLE' ELSE 'DISABLE' END);
    EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', kept, CASE WHEN secured.forced THEN 'FORCE' ELSE 'NO FORCE' END);
END
$$;

COMMENT ON FUNCTION neural.follow_row_security(regclass, regclass) IS
'Gives a table of chunks or words the row-level security of its source: a row is as visible as that which it was made of';

CREATE OR REPLACE FUNCTION neural.follow_source(kept regclass, source regclass)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    privilege record;
BEGIN
    PERFORM neural.follow_row_security(kept, source);
    FOR privilege IN  -- who reads the source reads what is made of it, who writes one writes the other
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               string_agg(DISTINCT CASE a.privilege_type WHEN 'SELECT' THEN 'SELECT'
                                   ELSE 'SELECT, INSERT, UPDATE, DELETE' END, ', ') AS granted
          FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = source AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') AND a.grantee <> c.relowner
         GROUP BY a.grantee
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s', privilege.granted, kept, privilege.grantee);
        BEGIN  -- what a search reads besides, and what an encoding session writes
            IF privilege.granted LIKE '%INSERT%' THEN
                PERFORM neural.grant_application(privilege.grantee);
            ELSE
                PERFORM neural.grant_reader(privilege.grantee);
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'schema neural is of another role; let it GRANT USAGE ON SCHEMA neural TO %', privilege.grantee;
        END;
    END LOOP;
    FOR privilege IN  -- workers: who may say that they live (neural.grant_worker)
        SELECT DISTINCT a.grantee::regrole::text AS grantee FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = 'neural.workers'::regclass AND a.privilege_type = 'INSERT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', (parse_ident(neural.qualified(source)))[1], privilege.grantee);
        EXECUTE format('GRANT SELECT ON %s TO %s', source, privilege.grantee);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s', kept, privilege.grantee);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.follow_source(regclass, regclass) IS
'Makes a table of chunks or words as visible as its source: the same row-level security, and the same
grants, with those on schema neural that searching and encoding need';
