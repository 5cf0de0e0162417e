-- What no trigger saw: a source and what is kept of it are compared, and what differs is noted like any other change.
--
--     follow --> names, columns, key, triggers, visibility of what is kept      reconcile --> rows, words and their counts
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
    kept record;
    names text[];
    types text[];
    texts text[];
    spoken text;
    wanted text;
    schema text;
    made record;
    number integer;
    key record;
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
         WHERE e.id = space RETURNING * INTO s;
    END IF;
    SELECT * INTO kept FROM neural.kept_tables(space);
    FOR made IN SELECT t.name FROM unnest(ARRAY[kept.chunks, kept.terms]) AS t(name)
                 WHERE t.name IS NOT NULL AND s.reads IS NOT NULL AND to_regclass(t.name) IS NULL
    LOOP
        RETURN NEXT format('table %s of search %s.%s is missing; make the search again', made.name, s.source, s.attribute);
        RETURN;
    END LOOP;
    names := neural.key_columns(s.relation);
    types := ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM unnest(names) WITH ORDINALITY AS k(name, place)
                     JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = k.name ORDER BY k.place);
    IF names IS NULL OR (kept.key_names IS NOT NULL AND cardinality(names) <> cardinality(kept.key_names)) THEN
        RETURN NEXT format('table %s has another primary key than its search %s was made of; make the search again', s.source, s.attribute);
        RETURN;
    END IF;

    IF s.source <> neural.qualified(s.relation) THEN
        RETURN NEXT format('table %s is called %s now', s.source, neural.qualified(s.relation));
        IF repair THEN
            schema := (parse_ident(neural.qualified(s.relation)))[1];
            IF schema <> (parse_ident(s.source))[1] THEN  -- what is kept of a table lies beside it
                FOR made IN SELECT DISTINCT t.name FROM neural.spaces e, neural.kept_tables(e.id) k, unnest(ARRAY[k.chunks, k.terms]) AS t(name)
                             WHERE e.relation = s.relation AND (parse_ident(e.source))[1] <> schema AND to_regclass(t.name) IS NOT NULL
                LOOP
                    EXECUTE format('ALTER TABLE %s SET SCHEMA %I', made.name, schema);
                END LOOP;
            END IF;
            UPDATE neural.spaces e SET source = neural.qualified(e.relation),
                   watched = CASE WHEN e.fields IS NULL THEN e.watched
                                  ELSE jsonb_build_object(neural.qualified(e.relation), (SELECT value FROM jsonb_each(e.watched) LIMIT 1)) END
             WHERE e.relation = s.relation;
            SELECT * INTO s FROM neural.spaces WHERE id = space;
            SELECT * INTO kept FROM neural.kept_tables(space);
        END IF;
    END IF;

    FOR key IN SELECT k.name, k.before, k.type, k.type_before
                 FROM unnest(names, kept.key_names, types, kept.key_types) AS k(name, before, type, type_before)
                WHERE k.before IS NOT NULL AND (k.before <> 'source_' || k.name OR k.type <> k.type_before)
    LOOP
        RETURN NEXT format('column %s of table %s was of type %s, and is %s of type %s now', substr(key.before, 8), s.source,
                           key.type_before, key.name, key.type);
        CONTINUE WHEN NOT repair;
        FOR made IN SELECT t.name FROM unnest(ARRAY[kept.chunks, kept.terms]) AS t(name) WHERE t.name IS NOT NULL LOOP
            IF key.type <> key.type_before THEN
                EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %2$I::%s', made.name, key.before, key.type, key.type);
            END IF;
            IF key.before <> 'source_' || key.name THEN
                EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', made.name, key.before, 'source_' || key.name);
            END IF;
        END LOOP;
        PERFORM neural.retry(space);  -- rows whose keys did not fit
    END LOOP;

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

    FOR made IN SELECT c.conname AS name, c.conrelid::regclass AS relation FROM pg_constraint c
                 WHERE c.contype = 'f' AND c.confrelid = s.relation
                   AND c.conrelid IN (to_regclass(kept.chunks), to_regclass(kept.terms)) AND c.conparentid = 0
    LOOP
        RETURN NEXT format('foreign key %I of table %s stands in the way of partitions and changes of the key', made.name, made.relation);
        IF repair THEN  -- first the triggers, which then do what it did
            PERFORM neural.watch_again(space);
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', made.relation, made.name);
        END IF;
    END LOOP;

    IF s.reads IS NOT NULL THEN
        FOR made IN SELECT * FROM neural.wrong_triggers(space) LOOP
            RETURN NEXT format('trigger %I of table %s %s', made.name, made.relation, made.problem);
            IF repair AND made.mendable THEN
                PERFORM neural.watch_again(space);
            END IF;
        END LOOP;
    END IF;

    FOR made IN SELECT t.name FROM unnest(ARRAY[kept.chunks, kept.terms]) AS t(name)
                 WHERE t.name IS NOT NULL AND to_regclass(t.name) IS NOT NULL AND neural.less_visible(to_regclass(t.name), s.relation)
    LOOP
        RETURN NEXT format('table %s has another owner, other grants or another row-level security than %s', made.name, s.source);
        IF repair THEN
            PERFORM neural.follow_source(to_regclass(made.name), s.relation);
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
        OR n.kept IS DISTINCT FROM neural.kept_of(own.ids) OR n.equal IS DISTINCT FROM neural.equality(s.relation)
$$;

COMMENT ON FUNCTION neural.wrong_triggers(bigint) IS
'The triggers of a search that are missing, turned off, or note for others, and whether making them anew mends that';

CREATE OR REPLACE FUNCTION neural.less_visible(kept regclass, source regclass)
RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (k.relowner, k.relrowsecurity, k.relforcerowsecurity) <> (s.relowner, s.relrowsecurity, s.relforcerowsecurity)
        OR s.relrowsecurity <> EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = kept AND p.polname = 'as_its_source')
        OR EXISTS (SELECT FROM neural.lacking(kept, source))
      FROM pg_class k, pg_class s WHERE k.oid = kept AND s.oid = source
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

CREATE OR REPLACE FUNCTION neural.reconcile_slice(space bigint, after jsonb, most integer, repair boolean DEFAULT true)
RETURNS TABLE (missing bigint, stale bigint, orphans bigint, last jsonb)
LANGUAGE plpgsql
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET plan_cache_mode = 'force_custom_plan'
AS $$
DECLARE
    s neural.spaces;
    kept record;
    keys text;
    typed text;
    hashed text;
    narrowed boolean := false;
    above text := '';
    known text;
    path text := current_setting('search_path');
    upper jsonb;
    found jsonb;
    beyond jsonb;
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces WHERE id = space;
    SELECT * INTO kept FROM neural.kept_tables(space);
    IF s.source = 'neural.documents' AND s.reads IS NULL THEN
        s.reads := pg_catalog.format('SELECT documents.id AS source_id, documents.title, documents.content, NULL::text AS language
                             FROM neural.documents WHERE documents.collection = %L', s.attribute);
    END IF;
    keys := (SELECT string_agg(pg_catalog.format('r.%I', n), ', ') FROM pg_catalog.unnest(kept.key_names) n);
    typed := (SELECT string_agg(pg_catalog.format('($1 ->> %s)::%s', n.place - 1, n.type), ', ' ORDER BY n.place)
                FROM pg_catalog.unnest(kept.key_types) WITH ORDINALITY AS n(type, place));
    IF after IS NOT NULL THEN
        above := pg_catalog.format('WHERE (%s) > (%s)', keys, typed);
    END IF;
    IF NOT neural.may_read_contents(s.relation) THEN  -- nothing that the owner has written is executed: keys alone
        narrowed := s.reads ~* '\mwhere\M';  -- not all rows are searchable, and which are cannot be told
        s.reads := (SELECT pg_catalog.format('SELECT %s FROM %s s', string_agg(pg_catalog.format('s.%I AS %I', k, 'source_' || k), ', '), s.relation)
                      FROM pg_catalog.unnest(neural.key_columns(s.relation)) k);
    ELSIF kept.chunks IS NOT NULL AND s.revision <> 'given' THEN
        hashed := neural.source_hash(s);
    END IF;
    known := pg_catalog.format('NOT EXISTS (SELECT FROM neural.pending p WHERE p.space_id = %1$s AND p.key = pg_catalog.jsonb_build_array(%2$s))
                     AND pg_catalog.jsonb_build_array(%2$s) NOT IN (SELECT jsonb_array_elements(c.keys) FROM neural.changes c WHERE c.space_id = %1$s)
                     AND NOT EXISTS (SELECT FROM neural.failed f WHERE f.space_id = %1$s AND f.key = pg_catalog.jsonb_build_array(%2$s))', space, '%1$s');
    PERFORM set_config('search_path', neural.reading_path(s.source), true);
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.count(*), (pg_catalog.array_agg(pg_catalog.jsonb_build_array(%1$s) ORDER BY %2$s))[1] FROM (SELECT * FROM (%3$s) r %4$s ORDER BY %1$s LIMIT %5$s) r',
        keys, (SELECT string_agg(pg_catalog.format('r.%I DESC', n), ', ') FROM pg_catalog.unnest(kept.key_names) n), s.reads, above, most)
      INTO missing, last USING after;
    upper := CASE WHEN missing = most THEN last END;  -- NULL at the end of the table: what is kept beyond it is of no row
    LOOP
        BEGIN
            EXECUTE pg_catalog.format(
                'SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(%1$s)) FILTER (WHERE t."there" IS NULL),
                        pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(%1$s)) FILTER (WHERE t."there" AND r."its hash" IS DISTINCT FROM c.source_hash)
                   FROM (SELECT r.*, %2$s AS "its hash" FROM (SELECT * FROM (%3$s) r %4$s ORDER BY %1$s LIMIT %5$s) r) r
                   LEFT JOIN (SELECT true AS "there", t.* FROM %6$s t) t ON %7$s
                   LEFT JOIN %8$s c ON %9$s
                  WHERE (t."there" IS NULL OR r."its hash" IS DISTINCT FROM c.source_hash) AND %10$s',
                keys, coalesce(hashed, 'NULL::bytea'), s.reads, above, most, kept.terms,
                neural.same_columns('t', 'r', kept.key_names, s.relation),
                CASE WHEN hashed IS NULL THEN '(SELECT NULL::bytea AS source_hash)' ELSE kept.chunks END,
                CASE WHEN hashed IS NULL THEN 'true'
                     ELSE neural.same_columns('c', 'r', kept.key_names, s.relation) || ' AND c.ordinal = 0' END,
                pg_catalog.format(known, keys)) INTO found, beyond USING after;
            EXIT;
        EXCEPTION WHEN data_exception OR raise_exception THEN
            IF hashed IS NULL THEN
                RAISE;
            END IF;
            hashed := NULL;  -- a row of the slice cannot be read: the worker tells which; the keys are compared
        END;
    END LOOP;
    IF narrowed THEN
        found := NULL;
    END IF;
    missing := coalesce(jsonb_array_length(found), 0);
    stale := coalesce(jsonb_array_length(beyond), 0);
    found := coalesce(found, '[]') || coalesce(beyond, '[]');
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(%1$s)) FROM (%2$s) r
          WHERE %3$s %4$s NOT EXISTS (SELECT FROM (%5$s) s WHERE %6$s) AND %7$s',
        keys, pg_catalog.concat_ws(' UNION ALL ', pg_catalog.format('SELECT %s FROM %s r', keys, kept.terms),
                        CASE WHEN kept.chunks IS NOT NULL THEN pg_catalog.format('SELECT %s FROM %s r', keys, kept.chunks) END),
        CASE WHEN after IS NULL THEN '' ELSE pg_catalog.format('(%s) > (%s) AND', keys, typed) END,
        CASE WHEN upper IS NULL THEN '' ELSE pg_catalog.format('(%s) <= (%s) AND', keys, replace(typed, '$1', '$2')) END,
        s.reads, neural.same_columns('s', 'r', kept.key_names, s.relation), pg_catalog.format(known, keys)) INTO beyond USING after, upper;
    orphans := coalesce(jsonb_array_length(beyond), 0);
    found := found || coalesce(beyond, '[]');
    PERFORM set_config('search_path', path, true);
    IF repair AND found <> '[]' AND (s.source <> 'neural.documents' OR EXISTS (SELECT FROM neural.spaces e WHERE e.id = space AND e.reads IS NOT NULL)) THEN
        INSERT INTO neural.changes (space_id, keys, rows)
        SELECT space, pg_catalog.jsonb_agg(k.key), pg_catalog.count(*) FROM jsonb_array_elements(found) WITH ORDINALITY AS k(key, place) GROUP BY (k.place - 1) / 1000;
        PERFORM neural.wake();
    END IF;
    last := upper;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION neural.reconcile_slice(bigint, jsonb, integer, boolean) IS
'Compares so many rows after a key with what is kept of them: rows without words, rows whose chunks are of another text, and
what is kept of rows that are gone. With repair these are noted. last is where the next slice begins; NULL at the end';

CREATE OR REPLACE FUNCTION neural.same_columns(alias text, other text, names text[], relation regclass)
RETURNS text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s.%I OPERATOR(%s) %s.%2$I', alias, n.name, coalesce(n.equal, 'pg_catalog.='), other), ' AND ')
      FROM unnest(names, neural.equality(relation)) AS n(name, equal)
$$;

COMMENT ON FUNCTION neural.same_columns(text, text, text[], regclass) IS
'The condition, as text, that two tables have the same key, by the operators of the primary key of a source';

CREATE OR REPLACE FUNCTION neural.source_hash(s neural.spaces)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH said AS (
        SELECT pg_catalog.format('coalesce(r.title::text, '''')') AS title, pg_catalog.format('coalesce(r.content::text, '''')') AS content,
               CASE WHEN s.source = 'neural.documents' THEN s.revision || ' ' ELSE '' END || s.max_tokens || ' ' || s.overlap AS how
    )
    SELECT pg_catalog.format(  -- as pgneural.types.fingerprint; a row without text has no chunks
        'CASE WHEN btrim(%1$s || %2$s, %5$L) <> '''' THEN
              substring(sha256(pg_catalog.convert_to(pg_catalog.format(''[%%s, %%s, %4$s%%s]'', octet_length(%1$s), octet_length(%2$s), octet_length(%3$L))
                                          || %1$s || %2$s || %3$L, ''UTF8'')) FROM 1 FOR 16) END',
        title, content, how, CASE WHEN s.source = 'neural.documents' THEN '0, ' ELSE '' END,
        E' \t\n\r\f\v\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000')
      FROM said
$$;

COMMENT ON FUNCTION neural.source_hash(neural.spaces) IS
'What a chunk keeps as the hash of its row, as an expression over r.title and r.content';

CREATE OR REPLACE FUNCTION neural.reconcile_space(
    space bigint, repair boolean DEFAULT true, OUT missing bigint, OUT stale bigint, OUT orphans bigint, OUT miscounted boolean
)
LANGUAGE plpgsql
AS $$
DECLARE
    slice record;
    after jsonb;
BEGIN
    missing := 0; stale := 0; orphans := 0;
    LOOP
        SELECT * INTO slice FROM neural.reconcile_slice(space, after, 10000, repair);
        missing := missing + slice.missing;
        stale := stale + slice.stale;
        orphans := orphans + slice.orphans;
        after := slice.last;
        EXIT WHEN after IS NULL;
    END LOOP;
    miscounted := neural.recount(space, repair);
END
$$;

COMMENT ON FUNCTION neural.reconcile_space(bigint, boolean) IS
'Compares all rows of a source with what is kept of them, and the counts of words with the words; with repair, what differs is
noted, and the counts are made anew';

CREATE OR REPLACE FUNCTION neural.recount(space bigint, repair boolean DEFAULT true)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    terms text := (SELECT k.terms FROM neural.kept_tables(space) k);
BEGIN
    IF to_regclass(terms) IS NULL OR NOT neural.miscounted(space, terms) THEN
        RETURN false;
    ELSIF NOT repair THEN
        RETURN true;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', terms);  -- nobody counts meanwhile
    PERFORM pg_advisory_xact_lock(hashtextextended('pgneural counts ' || space, 0));
    DELETE FROM neural.term_counts WHERE space_id = space;
    DELETE FROM neural.corpus_counts WHERE space_id = space;
    EXECUTE format('INSERT INTO neural.term_counts (space_id, language, lexeme, documents)
                    SELECT $1, r.language, t, count(*) FROM %s r, neural.counted_words(r.lexemes, r.parts) t GROUP BY 2, 3', terms) USING space;
    EXECUTE format('INSERT INTO neural.corpus_counts (space_id, language, documents, tokens)
                    SELECT $1, r.language, count(*), sum(r.length) FROM %s r GROUP BY 2', terms) USING space;
    RETURN true;
END
$$;

COMMENT ON FUNCTION neural.recount(bigint, boolean) IS
'Whether the counts of words differ from the words, as after a restore of data alone; with repair they are counted anew';

CREATE OR REPLACE FUNCTION neural.miscounted(space bigint, terms text)
RETURNS boolean
LANGUAGE plpgsql STABLE STRICT
AS $$
DECLARE
    wrong boolean;
BEGIN
    EXECUTE format(
        'SELECT EXISTS (
             SELECT FROM (SELECT language, count(*) AS documents, sum(length) AS tokens FROM %s GROUP BY 1) t
               FULL JOIN (SELECT language, sum(documents) AS documents, sum(tokens) AS tokens
                            FROM neural.corpus_counts WHERE space_id = $1 GROUP BY 1) c USING (language)
              WHERE coalesce(t.documents, 0) <> coalesce(c.documents, 0)
                 OR abs(coalesce(t.tokens, 0) - coalesce(c.tokens, 0)) > 0.001 * coalesce(t.tokens, 0) + 0.5)
             OR coalesce((SELECT sum(documents) FROM neural.term_counts WHERE space_id = $1), 0)
                <> (SELECT coalesce(sum(CASE WHEN parts IS NULL THEN length(lexemes)
                                           ELSE (SELECT count(*) FROM neural.counted_words(lexemes, parts)) END), 0) FROM %1$s)', terms) INTO wrong USING space;
    RETURN wrong;
END
$$;

COMMENT ON FUNCTION neural.miscounted(bigint, text) IS 'Whether the counts of a space are not those of the words in its terms table';

CREATE OR REPLACE FUNCTION neural.write_counts(space bigint)
RETURNS jsonb
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(t.name::oid::text, jsonb_build_array(pg_stat_get_tuples_inserted(t.name), pg_stat_get_tuples_updated(t.name),
                                                                pg_stat_get_tuples_deleted(t.name), pg_relation_filenode(t.name)))
      FROM (SELECT p AS name FROM neural.watched_tables(space) w, neural.table_tree(w.relation) p WHERE w.relation IS NOT NULL
             UNION SELECT to_regclass(k) FROM neural.kept_tables(space) kept, unnest(ARRAY[kept.chunks, kept.terms]) k) t
     WHERE t.name IS NOT NULL
$$;

COMMENT ON FUNCTION neural.write_counts(bigint) IS
'What the server has counted of writes to the tables of a space: while it is the same, there is nothing to be compared';

CREATE OR REPLACE FUNCTION neural.reconcile(source regclass, attribute text DEFAULT NULL)
RETURNS TABLE (search text, space text, missing bigint, stale bigint, orphans bigint, miscounted boolean, followed text[])
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
BEGIN
    FOR s IN SELECT e.* FROM neural.spaces e WHERE e.relation = reconcile.source AND e.kind = 'dense' AND e.reads IS NOT NULL
                AND e.attribute = coalesce(reconcile.attribute, e.attribute) ORDER BY e.id
    LOOP
        search := s.attribute;
        space := s.name;
        followed := ARRAY(SELECT neural.follow(s.id));
        SELECT r.missing, r.stale, r.orphans, r.miscounted INTO missing, stale, orphans, miscounted FROM neural.reconcile_space(s.id) r;
        RETURN NEXT;
    END LOOP;
    IF search IS NULL THEN
        RAISE EXCEPTION 'table % has no search %', source, coalesce(attribute, '')
        USING ERRCODE = 'PN404', HINT = 'neural.status lists them.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.reconcile(regclass, text) IS
'Compares a table with what is kept of it for its searches, row by row, and repairs what differs: rows that no trigger saw
(an attached partition, a replica, a trigger that was off, a restore) are noted for the workers, what is kept of rows that are
gone is removed by them, names, keys, triggers and rights follow the table. Run it as the owner of the table';

CREATE OR REPLACE FUNCTION neural.changed_counts(space bigint)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
    counts jsonb := neural.write_counts(space);
    rows bigint;
    words bigint;
    path text := current_setting('search_path');
BEGIN
    SELECT * INTO s FROM neural.spaces WHERE id = space;
    IF s.reconciled IS NOT DISTINCT FROM counts AND s.reads IS NOT NULL AND neural.may_read_contents(s.relation) THEN  -- statistics may be some seconds old: count, too
        PERFORM set_config('search_path', neural.reading_path(s.source), true);
        EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM (%s) r', s.reads) INTO rows;
        EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s', (SELECT k.terms FROM neural.kept_tables(space) k)) INTO words;
        PERFORM set_config('search_path', path, true);
        IF rows = words THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN counts;
END
$$;

COMMENT ON FUNCTION neural.changed_counts(bigint) IS
'What the server has counted of writes to the tables of a space, if it is not the same as at the last comparison, or if there are
not as many rows as words; NULL if nothing has to be compared';
