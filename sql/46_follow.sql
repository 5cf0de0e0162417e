-- What no trigger saw: a source and what is kept of it are compared, and what differs is noted like any other change.
--
--     follow (here) --> names, columns, key, triggers, visibility of what is kept      46_reconcile.sql --> rows, words, counts
--
-- Called by workers from time to time, by `pgneural db check` (which repairs nothing), and by people at psql.

CREATE OR REPLACE FUNCTION neural.reads_of(relation regclass, columns text[], language_by text)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT %s, %s AS title, %s AS content, %s AS language FROM %s s',
        (SELECT string_agg(format('s.%I AS %I', k, 'source_' || k), ', ' ORDER BY place)
           FROM unnest(neural.key_columns(relation)) WITH ORDINALITY AS every(k, place)),
        CASE WHEN cardinality(columns) > 1 THEN format('s.%I::text', columns[1]) ELSE 'NULL::text' END,
        CASE WHEN cardinality(columns) > 2
             THEN format('pg_catalog.concat_ws(E''\n\n'', %s)', (SELECT string_agg(format('s.%I::text', c), ', ' ORDER BY place)
                                                          FROM unnest(columns[2:]) WITH ORDINALITY AS u(c, place)))
             ELSE format('s.%I::text', columns[cardinality(columns)]) END,
        CASE WHEN language_by IS NULL THEN 'NULL::text' ELSE format('s.%I::text', language_by) END,
        neural.qualified(relation))
$$;

COMMENT ON FUNCTION neural.reads_of(regclass, text[], text) IS
'The SELECT of what is searchable of a table: of several columns the first is the title';

CREATE OR REPLACE FUNCTION neural.searchable_rows(space bigint)
RETURNS text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(s.reads, CASE WHEN s.source = 'neural.documents' THEN
               format('SELECT documents.id AS source_id, documents.title, documents.content, (%s)::text AS language
                         FROM neural.documents WHERE documents.collection = %L', coalesce(s.language_by, 'NULL'), s.attribute) END)
      FROM neural.spaces s WHERE s.id = space
$$;

COMMENT ON FUNCTION neural.searchable_rows(bigint) IS
'The SELECT of what is searchable of the source of a space: source_… keys, title, content, language';

CREATE OR REPLACE FUNCTION neural.numbered(relation regclass, columns text[], language_by text)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'columns', (SELECT jsonb_agg(a.attnum ORDER BY c.place)
                      FROM unnest(columns) WITH ORDINALITY AS c(name, place)
                      JOIN pg_attribute a ON a.attrelid = relation AND a.attname = c.name AND NOT a.attisdropped),
        'language', (SELECT a.attnum FROM pg_attribute a
                      WHERE a.attrelid = relation AND a.attname = language_by AND NOT a.attisdropped))
$$;

COMMENT ON FUNCTION neural.numbered(regclass, text[], text) IS
'The columns of a search by their numbers, which a rename does not change';

CREATE OR REPLACE FUNCTION neural.follow(space bigint, repair boolean DEFAULT true)
RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    of_space record;
    names text[];
    types text[];
    texts text[];
    spoken text;
    wanted text;
    schema text;
    item record;
    number integer;
    key record;
    tables text[];
BEGIN
    SELECT * INTO s FROM neural.spaces WHERE id = space AND kind = 'dense';
    IF NOT FOUND OR s.source = 'neural.documents' THEN
        RETURN;
    END IF;
    repair := repair AND coalesce(pg_has_role((SELECT relowner FROM pg_class WHERE oid = coalesce(to_regclass(s.source), s.relation)), 'USAGE'), true);
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = s.relation) THEN  -- dropped; perhaps made again, as a restore does
        IF to_regclass(s.source) IS NULL THEN
            RETURN NEXT format('table %s is gone, but its search %s is not; run: SELECT neural.unwatch(%L, %L)',
                               s.source, s.attribute, s.source, s.attribute);
            RETURN;
        END IF;
        RETURN NEXT format('table %s is another one than its search %s was made of', s.source, s.attribute);
        IF NOT repair THEN
            RETURN;
        END IF;
        names := ARRAY(SELECT jsonb_array_elements_text(w.value) FROM jsonb_each(s.watched) w LIMIT 1);
        number := jsonb_array_length(s.fields -> 'columns');
        UPDATE neural.spaces e SET relation = to_regclass(e.source), reconciled = NULL,
               fields = CASE WHEN e.fields IS NOT NULL THEN neural.numbered(to_regclass(e.source), names[:number], names[number + 1]) END
         WHERE e.source = s.source AND e.attribute = s.attribute AND e.name = s.name  -- with its extra vectors
           AND e.relation IS NOT DISTINCT FROM s.relation;
        SELECT * INTO s FROM neural.spaces WHERE id = space;
    END IF;
    SELECT * INTO of_space FROM neural.space_tables(space);
    tables := array_remove(ARRAY(SELECT neural.extra_tables(space)) || ARRAY[of_space.chunks, of_space.terms], NULL);
    FOR item IN SELECT t.name FROM unnest(tables) AS t(name) WHERE s.reads IS NOT NULL AND to_regclass(t.name) IS NULL
    LOOP
        RETURN NEXT format('table %s of search %s.%s is missing; make the search again', item.name, s.source, s.attribute);
        RETURN;
    END LOOP;
    IF repair THEN  -- before anything of somebody else's is changed because the catalog names it
        PERFORM neural.require_search_table(to_regclass(t.name), s.relation) FROM unnest(tables) AS t(name) WHERE to_regclass(t.name) IS NOT NULL;
    END IF;
    names := neural.key_columns(s.relation);
    types := ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM unnest(names) WITH ORDINALITY AS k(name, place)
                     JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = k.name ORDER BY k.place);
    IF names IS NULL OR (of_space.key_names IS NOT NULL AND cardinality(names) <> cardinality(of_space.key_names)) THEN
        RETURN NEXT format('table %s has another primary key than its search %s was made of; make the search again', s.source, s.attribute);
        RETURN;
    END IF;

    IF s.source <> neural.qualified(s.relation) THEN
        RETURN NEXT format('table %s is called %s now', s.source, neural.qualified(s.relation));
        IF repair THEN
            schema := (parse_ident(neural.qualified(s.relation)))[1];
            IF schema <> (parse_ident(s.source))[1] THEN  -- what is kept of a table lies beside it
                FOR item IN SELECT DISTINCT t.name FROM neural.spaces e, neural.space_tables(e.id) k, unnest(ARRAY[k.chunks, k.terms]) AS t(name)
                             WHERE e.relation = s.relation AND (parse_ident(e.source))[1] <> schema AND to_regclass(t.name) IS NOT NULL
                LOOP
                    EXECUTE format('ALTER TABLE %s SET SCHEMA %I', item.name, schema);
                END LOOP;
            END IF;
            UPDATE neural.spaces e SET source = neural.qualified(e.relation),
                   watched = CASE WHEN e.fields IS NULL THEN e.watched
                                  ELSE jsonb_build_object(neural.qualified(e.relation), (SELECT value FROM jsonb_each(e.watched) LIMIT 1)) END
             WHERE e.relation = s.relation;
            SELECT * INTO s FROM neural.spaces WHERE id = space;
            SELECT * INTO of_space FROM neural.space_tables(space);
            tables := array_remove(ARRAY(SELECT neural.extra_tables(space)) || ARRAY[of_space.chunks, of_space.terms], NULL);
        END IF;
    END IF;

    FOR key IN SELECT k.name, k.before, k.type, k.type_before
                 FROM unnest(names, of_space.key_names, types, of_space.key_types) AS k(name, before, type, type_before)
                WHERE k.before IS NOT NULL AND (k.before <> 'source_' || k.name OR k.type <> k.type_before)
    LOOP
        RETURN NEXT format('column %s of table %s was of type %s, and is %s of type %s now', substr(key.before, 8), s.source,
                           key.type_before, key.name, key.type);
        CONTINUE WHEN NOT repair;
        FOR item IN SELECT t.name, c.conname FROM unnest(tables) AS t(name)
                      LEFT JOIN pg_constraint c ON c.conrelid = to_regclass(t.name) AND c.contype = 'f'
                           AND c.confrelid = to_regclass(of_space.chunks) LOOP
            IF key.type <> key.type_before THEN
                IF item.conname IS NOT NULL THEN  -- of extra vectors to their chunks, until both have the other type
                    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', item.name, item.conname);
                END IF;
                EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %2$I::%s', item.name, key.before, key.type, key.type);
            END IF;
            IF key.before <> 'source_' || key.name THEN
                EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', item.name, key.before, 'source_' || key.name);
            END IF;
        END LOOP;
        PERFORM neural.retry(space);  -- rows whose keys did not fit
    END LOOP;
    IF repair THEN
        PERFORM neural.bind_vectors(space);
    END IF;

    IF s.fields IS NOT NULL THEN
        texts := ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(s.fields -> 'columns') WITH ORDINALITY AS c(number, place)
                           JOIN pg_attribute a ON a.attrelid = s.relation AND a.attnum = c.number::integer AND NOT a.attisdropped ORDER BY c.place);
        spoken := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = s.relation AND NOT a.attisdropped
                           AND a.attnum = (s.fields ->> 'language')::integer);
        wanted := CASE WHEN texts <> '{}' THEN neural.reads_of(s.relation, texts, spoken) END;
        IF texts = '{}' THEN
            RETURN NEXT format('no column of table %s that search %s reads is left; run: SELECT neural.unwatch(%L, %L)',
                               s.source, s.attribute, s.source, s.attribute);
            RETURN;
        ELSIF s.reads IS DISTINCT FROM wanted THEN
            RETURN NEXT format('search %s of table %s reads columns that have other names, or are gone', s.attribute, s.source);
            IF repair THEN
                UPDATE neural.spaces e SET reads = wanted, watched = jsonb_build_object(e.source, array_remove(texts || spoken, NULL))
                 WHERE e.relation = s.relation AND e.attribute = s.attribute;
                IF cardinality(texts) < jsonb_array_length(s.fields -> 'columns')
                   OR (spoken IS NULL AND s.fields ->> 'language' IS NOT NULL) THEN  -- other texts, too
                    UPDATE neural.spaces e SET fields = neural.numbered(s.relation, texts, spoken)
                     WHERE e.relation = s.relation AND e.attribute = s.attribute;
                    PERFORM neural.mark_all(e.id, s.relation) FROM neural.spaces e
                      WHERE e.relation = s.relation AND e.attribute = s.attribute AND e.kind = 'dense';
                END IF;
                SELECT * INTO s FROM neural.spaces WHERE id = space;
            END IF;
        END IF;
    END IF;

    FOR item IN SELECT c.conname AS name, c.conrelid::regclass AS relation FROM pg_constraint c
                 WHERE c.contype = 'f' AND c.confrelid = s.relation
                   AND c.conrelid IN (to_regclass(of_space.chunks), to_regclass(of_space.terms)) AND c.conparentid = 0
    LOOP
        RETURN NEXT format('foreign key %I of table %s stands in the way of partitions and changes of the key', item.name, item.relation);
        IF repair THEN  -- first the triggers, which then do what it did
            PERFORM neural.rebuild_triggers(space);
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.name);
        END IF;
    END LOOP;

    IF s.reads IS NOT NULL THEN
        FOR item IN SELECT * FROM neural.wrong_triggers(space) LOOP
            RETURN NEXT format('trigger %I of table %s %s', item.name, item.relation, item.problem);
            IF repair AND item.mendable THEN
                PERFORM neural.rebuild_triggers(space);
            END IF;
        END LOOP;
    END IF;

    FOR item IN SELECT t.name FROM unnest(tables) AS t(name)
                 WHERE to_regclass(t.name) IS NOT NULL AND neural.less_visible(to_regclass(t.name), s.relation)
    LOOP
        RETURN NEXT format('table %s has another owner, other grants or another row-level security than %s', item.name, s.source);
        IF repair THEN
            PERFORM neural.follow_source(to_regclass(item.name), s.relation);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.follow(bigint, boolean) IS
'Makes what is kept of a source follow it: its name and schema, the names of its columns, the type of its key, partitions that
were attached, row-level security, owner and grants. Returns what differed; with repair => false only says so';

CREATE OR REPLACE FUNCTION neural.wrong_triggers(space bigint)
RETURNS TABLE (relation regclass, name text, problem text, mendable boolean)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH s AS (
        SELECT * FROM neural.spaces e WHERE e.id = space
    ), own AS (
        SELECT array_agg(e.id ORDER BY e.id) AS ids FROM neural.spaces e JOIN s ON e.relation = s.relation AND e.attribute = s.attribute
         WHERE e.kind = 'dense'
    ), noting AS (
        SELECT t.*, g.tgtype FROM neural.noting_triggers() t JOIN pg_trigger g ON g.tgrelid = t.relation AND g.tgname = t.name, own
         WHERE t.spaces && own.ids OR (t.relation IN (SELECT p FROM s, neural.table_tree(s.relation) p)
                                       AND t.chunk_table IN (SELECT e.chunk_table FROM neural.spaces e WHERE e.id = ANY (own.ids)))
    ), wanted AS (
        SELECT part.name AS relation, w.columns, k.kind, k.bit
          FROM neural.watched_tables(space) w, neural.table_tree(w.relation) AS part(name),
               (VALUES ('insert', 4), ('delete', 8), ('update', 16), ('truncate', 32)) AS k(kind, bit)
         WHERE w.relation IS NOT NULL
    )
    SELECT w.relation, coalesce(n.name, (SELECT min(o.chunk_table) FROM noting o) || '_' || w.kind, (parse_ident(s.source))[2] || '_' || s.attribute || '_' || w.kind),
           CASE WHEN n.name IS NULL THEN 'is gone, so changes there go unnoticed'
                WHEN NOT n.enabled THEN 'is turned off, so changes there go unnoticed; ALTER TABLE … ENABLE TRIGGER turns it on'
                ELSE 'notes for other spaces than its search has' END,
           n.name IS NULL OR n.enabled
      FROM s, own, wanted w
      LEFT JOIN noting n ON n.relation = w.relation AND n.tgtype & w.bit <> 0
     WHERE n.name IS NULL OR NOT n.enabled OR n.spaces IS DISTINCT FROM own.ids OR NOT (n.columns @> w.columns AND n.columns <@ w.columns)
        OR n.search_tables IS DISTINCT FROM neural.tables_of(own.ids) OR n.equal IS DISTINCT FROM neural.equality(s.relation)
$$;

COMMENT ON FUNCTION neural.wrong_triggers(bigint) IS
'The triggers of a search that are missing, turned off, or note for others, and whether making them anew mends that';

CREATE OR REPLACE FUNCTION neural.less_visible(search_table regclass, source regclass)
RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (k.relowner, k.relrowsecurity, k.relforcerowsecurity) <> (s.relowner, s.relrowsecurity, s.relforcerowsecurity)
        OR s.relrowsecurity <> EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = search_table AND p.polname = 'as_its_source')
        OR EXISTS (SELECT FROM neural.lacking(search_table, source))
      FROM pg_class k, pg_class s WHERE k.oid = search_table AND s.oid = source
$$;

COMMENT ON FUNCTION neural.less_visible(regclass, regclass) IS
'Whether a table of chunks or words has another owner, other grants or another row-level security than its source';

CREATE OR REPLACE FUNCTION neural.may_read_contents(source regclass)
RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT row_security_active(source) AND CASE WHEN o.rolsuper THEN has_table_privilege(source, 'SELECT')
           ELSE NOT me.rolsuper AND (pg_has_role(c.relowner, 'USAGE') OR has_table_privilege(source, 'SELECT')) END
      FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner, pg_roles me WHERE c.oid = source AND me.rolname = current_user
$$;

COMMENT ON FUNCTION neural.may_read_contents(regclass) IS
'Whether the caller sees all rows of a table, and may evaluate what its owner has made of them: a superuser does that for
another superuser only';
