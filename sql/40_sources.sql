-- Tables of the user's own as sources: which space belongs to one, and which of its rows are pending.
-- `op.create_search` and `MetaData.create_all` call these (store/definition.py), the ORM's searches call space_id.

CREATE OR REPLACE FUNCTION neural.qualified(relation regclass)
RETURNS text
LANGUAGE sql STABLE STRICT
SET quote_all_identifiers = off  -- what is compared is compared as text
AS $$
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;

COMMENT ON FUNCTION neural.qualified(regclass) IS
'The name of a table with its schema, whatever the search_path: as neural.spaces records it';

CREATE OR REPLACE VIEW neural.known_spaces AS
SELECT id FROM neural.spaces;

COMMENT ON VIEW neural.known_spaces IS
'Which numbers are those of spaces, for everybody: a writer may note changes for a number that is none yet in his snapshot';

GRANT SELECT ON neural.known_spaces TO PUBLIC;

CREATE OR REPLACE FUNCTION neural.guard_space()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    free text[] := '{revision,mean_length,resumes_at,problem,reconciled}';
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.relation := coalesce(NEW.relation, to_regclass(NEW.source));
        NEW.source := coalesce(neural.qualified(NEW.relation), NEW.source);
    ELSIF NEW.source <> OLD.source AND NEW.source IS DISTINCT FROM neural.qualified(NEW.relation) THEN
        RAISE EXCEPTION 'the source of space % is %, expected %', NEW.id, NEW.source, neural.qualified(NEW.relation)
        USING ERRCODE = 'PN400';
    ELSIF to_jsonb(NEW) - free <> to_jsonb(OLD) - free
          AND NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = NEW.relation), 'USAGE')
          AND NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'only the owner of table % changes its search', NEW.source
        USING ERRCODE = 'insufficient_privilege', HINT = 'Do it as a role that owns the table.';
    END IF;
    -- these become parts of statements
    IF NEW.distance NOT IN ('cosine', 'l2', 'inner_product', 'l1', 'hamming', 'jaccard')
       OR NEW.storage NOT IN ('vector', 'halfvec', 'bit', 'sparsevec')
       OR coalesce(NEW.vector_index ->> 'method', 'none') NOT IN ('hnsw', 'ivfflat', 'none')
       OR coalesce(NEW.vector_index ->> 'precision', 'full') NOT IN ('full', 'half', 'binary') THEN
        RAISE EXCEPTION 'space % has distance %, storage % and index %, which pgvector has not',
                        NEW.id, NEW.distance, NEW.storage, NEW.vector_index USING ERRCODE = 'PN400';
    END IF;
    IF NEW.title_boost NOT BETWEEN 0 AND 1000 /* = catalog.MAX_TITLE_BOOST */ AND (TG_OP = 'INSERT' OR NEW.title_boost IS DISTINCT FROM OLD.title_boost) THEN
        RAISE EXCEPTION 'title_boost is %, expected 0 to 1000', NEW.title_boost
        USING ERRCODE = 'PN400', HINT = '1 counts the words of titles as those of the content.';
    END IF;
    RETURN NEW;
END
$$;

REVOKE EXECUTE ON FUNCTION neural.guard_space() FROM PUBLIC;

COMMENT ON FUNCTION neural.guard_space() IS
'Trigger of neural.spaces: who may only write a source does not change what is read of it, a space has the name of its source,
and what becomes part of statements is one of a few words';

CREATE OR REPLACE TRIGGER guard_space BEFORE INSERT OR UPDATE ON neural.spaces
    FOR EACH ROW EXECUTE FUNCTION neural.guard_space();

CREATE OR REPLACE FUNCTION neural.space_id(source regclass, attribute text, revision text)
RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    space record;
BEGIN
    SELECT s.id, s.encoder, s.revision INTO space FROM neural.spaces s
     WHERE s.relation = space_id.source AND s.attribute = space_id.attribute AND s.kind = 'dense' AND s.state = 'serving';
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

CREATE OR REPLACE FUNCTION neural.active_space(source regclass, attribute text, chunk_table text, revision text, strict boolean)
RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    space record;
BEGIN
    SELECT s.id, s.encoder, s.revision, s.state INTO space FROM neural.spaces s
     WHERE s.relation = active_space.source AND s.attribute = active_space.attribute AND s.kind = 'dense'
       AND s.chunk_table = active_space.chunk_table;
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

COMMENT ON FUNCTION neural.active_space(regclass, text, text, text, boolean) IS
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

-- Everything here is done with the rights of who writes: types, casts and triggers that a table's owner has made gain none.
-- A writer may note changes of tables that he may write (policy noted of neural.changes), and of no others.
CREATE OR REPLACE FUNCTION neural.note_changes()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET row_security = on
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET work_mem = '32MB' SET plan_cache_mode = 'force_generic_plan'
AS $$
DECLARE
    spaces bigint[] := TG_ARGV[3];  -- not from the catalog, which an old snapshot does not show as it is now
    watched text[] := TG_ARGV[2];
    search_tables text[] := CASE WHEN TG_NARGS > 5 THEN TG_ARGV[4]::text[] END;
    equal text[] := CASE WHEN TG_NARGS > 5 THEN TG_ARGV[5]::text[] END;
    names text[] := coalesce(neural.key_columns(TG_RELID),  -- of a table that inherits without it, that of its parent
                             (SELECT neural.key_columns(inhparent) FROM pg_inherits WHERE inhrelid = TG_RELID LIMIT 1));
    key text;
    known text[];
    col text;
    search_table text;
    hash text := '0';
    changed text := CASE TG_OP WHEN 'DELETE' THEN 'old_rows n' ELSE 'new_rows n' END;
    moved text := '0';
    gone text := 'old_rows o';
    noted jsonb;
    number bigint;
    moves bigint;
    done boolean := search_tables IS NOT NULL;
BEGIN
    IF spaces IS NULL THEN  -- a trigger of version 0005 or before
        spaces := neural.spaces_of(TG_RELID, TG_ARGV[0], TG_ARGV[1]);
    END IF;
    IF names IS NULL THEN
        RAISE WARNING 'table % has no primary key, so what changes there is not searchable', TG_RELID::regclass;
        RETURN NULL;
    ELSIF TG_OP = 'TRUNCATE' THEN  -- perhaps of one partition; where the writer may not look what is left, workers do
        gone := (SELECT s.relation::text FROM neural.spaces s WHERE s.id = ANY (spaces) AND has_table_privilege(s.relation, 'SELECT')
                    AND NOT row_security_active(s.relation) LIMIT 1);
        FOR search_table IN SELECT neural.deletable(k) FROM unnest(search_tables) k LOOP
            CONTINUE WHEN search_table IS NULL OR gone IS NULL;
            EXECUTE format('DELETE FROM %s t WHERE NOT EXISTS (SELECT FROM %s o WHERE %s)', search_table, gone,
                           (SELECT string_agg(format('t.%I OPERATOR(%s) o.%I', 'source_' || k.name, k.equal, k.name), ' AND ')
                              FROM unnest(names, equal) AS k(name, equal)));
        END LOOP;
        INSERT INTO neural.changes (space_id, keys, rows) SELECT id, '[]', 0 FROM unnest(spaces) id;
        PERFORM neural.wake();
        RETURN NULL;
    END IF;
    key := (SELECT string_agg(format('n.%I', k), ', ') FROM unnest(names) k);
    IF TG_OP = 'UPDATE' THEN
        known := ARRAY(SELECT a.attname::text FROM pg_attribute a
                        WHERE a.attrelid = TG_RELID AND a.attname = ANY (watched) AND NOT a.attisdropped AND a.attgenerated <> 'v');
        IF cardinality(known) = cardinality(watched) THEN  -- else one was renamed, or is computed on reading: any update counts
            FOREACH col IN ARRAY known LOOP  -- hashes, not whole rows: what is compared stays small
                hash := format('hashtextextended(coalesce(n.%I::text, ''\x01 null''), %s)', col, hash);
            END LOOP;
            changed := format('(SELECT %1$s, %2$s AS "its hash" FROM new_rows n EXCEPT ALL SELECT %1$s, %2$s FROM old_rows n) n', key, hash);
        END IF;
        moved := (SELECT format('count(*) FILTER (WHERE (%s) NOT IN (SELECT %s FROM old_rows o))',
                                string_agg(format('n.%I::text', k), ', '), string_agg(format('o.%I::text', k), ', ')) FROM unnest(names) k);
    END IF;
    EXECUTE format('SELECT jsonb_agg(jsonb_build_array(%s)), count(*), %s FROM %s', key, moved, changed) INTO noted, number, moves;
    IF moves > 0 THEN  -- rows have other keys now
        gone := format('old_rows o WHERE NOT EXISTS (SELECT FROM new_rows n WHERE %s)',
                       (SELECT string_agg(format('n.%1$I OPERATOR(%2$s) o.%1$I', k.name, coalesce(k.equal, '=')), ' AND ')
                          FROM unnest(names, equal) AS k(name, equal)));
    END IF;
    IF number = 0 THEN
        RETURN NULL;
    END IF;
    IF moves > 0 OR TG_OP = 'DELETE' THEN  -- who may, removes what is kept of these rows; of others workers do
        FOR search_table IN SELECT neural.deletable(k) FROM unnest(search_tables) k LOOP
            IF search_table IS NULL THEN
                done := false;
                CONTINUE;
            END IF;
            EXECUTE format('DELETE FROM %s t USING (SELECT * FROM %s) o WHERE %s', search_table, gone,
                           (SELECT string_agg(format('t.%I OPERATOR(%s) o.%I', 'source_' || k.name, k.equal, k.name), ' AND ')
                              FROM unnest(names, equal) AS k(name, equal)));
        END LOOP;
        IF moves > 0 AND NOT done THEN
            EXECUTE format('SELECT $1 || coalesce(jsonb_agg(jsonb_build_array(%s)), ''[]''), $2 + count(*) FROM %s',
                           (SELECT string_agg(format('o.%I', k), ', ') FROM unnest(names) k), gone) INTO noted, number USING noted, number;
        END IF;
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
'Trigger of a source: notes inserted and deleted rows, and those of which a watched column changed, and removes what is kept of
rows that are gone. Arguments: the chunk table, its schema or an empty text for that of the source, and as arrays the watched
columns, the ids of the spaces, the tables that are kept, and the operators by which the columns of the key are equal';

CREATE OR REPLACE FUNCTION neural.deletable(search_table text)
RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[] := parse_ident(search_table);
    schema oid := (SELECT oid FROM pg_namespace WHERE nspname = names[1]);
    relation oid := (SELECT oid FROM pg_class WHERE relnamespace = schema AND relname = names[2]);
BEGIN  -- found by name without asking for rights, which a writer need not have there
    IF has_schema_privilege(schema, 'USAGE') AND has_table_privilege(relation, 'DELETE') AND has_table_privilege(relation, 'SELECT') THEN
        RETURN search_table;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION neural.deletable(text) IS 'A table that is kept, if the caller may delete from it; NULL if not, or if it is gone';

CREATE OR REPLACE FUNCTION neural.spaces_of(
    relation regclass, chunk_table text, schema text, path name[] DEFAULT current_schemas(false)
)
RETURNS bigint[]
LANGUAGE sql STABLE
AS $$
    WITH likely AS (  -- where no schema is named, that of the table, or else the first of the path
        SELECT schema AS name, 0 AS place WHERE schema <> ''
         UNION ALL
        SELECT n.nspname, 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = relation AND schema = ''
         UNION ALL
        SELECT name, 1 + place FROM unnest(path) WITH ORDINALITY AS p(name, place) WHERE schema = ''
    ), own AS (
        SELECT s.source, s.attribute FROM neural.spaces s JOIN likely l ON (parse_ident(s.source))[1] = l.name
         WHERE s.chunk_table = spaces_of.chunk_table AND s.kind = 'dense' ORDER BY l.place LIMIT 1
    )
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}') FROM neural.spaces s JOIN own USING (source, attribute)
     WHERE s.kind = 'dense'
$$;

COMMENT ON FUNCTION neural.spaces_of(regclass, text, text, name[]) IS
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

CREATE OR REPLACE FUNCTION neural.space_tables(
    space bigint, OUT chunks text, OUT terms text, OUT key_names text[], OUT key_types text[], OUT key_oids bigint[]
)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp  -- so that types have their schema
AS $$
    SELECT CASE WHEN s.vector_column IS NULL THEN format('%I.%I', n.schema, s.chunk_table) END,
           format('%I.%I', n.schema, s.chunk_table || '_terms'), k.names, k.types, k.oids
      FROM neural.spaces s
     CROSS JOIN LATERAL (SELECT (parse_ident(s.source))[1] AS schema) n
      LEFT JOIN LATERAL (
           SELECT array_agg(a.attname::text ORDER BY k.place) AS names,
                  array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.place) AS types,
                  array_agg(coalesce(nullif(t.typbasetype, 0), t.oid)::bigint ORDER BY k.place) AS oids
             FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(number, place), pg_catalog.pg_attribute a
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            WHERE i.indrelid = to_regclass(format('%I.%I', n.schema, s.chunk_table || '_terms')) AND i.indisprimary
              AND a.attrelid = i.indrelid AND a.attnum = k.number) k ON true
     WHERE s.id = space
$$;

COMMENT ON FUNCTION neural.space_tables(bigint) IS
'The chunk table (NULL where the vectors are in a column of the source) and the terms table of a space, and their key';

CREATE OR REPLACE FUNCTION neural.equality(relation regclass)
RETURNS text[]
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(coalesce(quote_ident(n.nspname) || '.' || o.oprname, 'pg_catalog.=') ORDER BY k.place)
      FROM pg_index i
     CROSS JOIN LATERAL unnest(i.indclass::oid[]) WITH ORDINALITY AS k(class, place)
      JOIN pg_opclass c ON c.oid = k.class
      LEFT JOIN pg_amop e ON e.amopfamily = c.opcfamily AND e.amopstrategy = 3
                         AND e.amoplefttype = c.opcintype AND e.amoprighttype = c.opcintype
      LEFT JOIN pg_operator o ON o.oid = e.amopopr
      LEFT JOIN pg_namespace n ON n.oid = o.oprnamespace
     WHERE i.indrelid = relation AND i.indisprimary AND k.place <= i.indnkeyatts
$$;

COMMENT ON FUNCTION neural.equality(regclass) IS 'The operators by which the columns of the primary key of a table are equal, in order';

CREATE OR REPLACE FUNCTION neural.tables_of(spaces bigint[])
RETURNS text[]
LANGUAGE sql STABLE STRICT
AS $$
    SELECT array_agg(DISTINCT t.name)
      FROM unnest(spaces) AS s(id), neural.space_tables(s.id) k, unnest(ARRAY[k.chunks, k.terms]) AS t(name) WHERE t.name IS NOT NULL
$$;

COMMENT ON FUNCTION neural.tables_of(bigint[]) IS 'The chunk tables and the terms tables of spaces';
