-- Rows, words and their counts, compared with what is kept of them; 46_follow.sql sees to all else.

CREATE OR REPLACE FUNCTION neural.reconcile_slice(space bigint, after jsonb, most integer, repair boolean DEFAULT true)
RETURNS TABLE (missing bigint, stale bigint, orphans bigint, last jsonb)
LANGUAGE plpgsql
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET plan_cache_mode = 'force_custom_plan'
AS $$
DECLARE
    s neural.spaces;
    tables record;
    keys text;
    typed text;
    hashed text;
    untold text := '';
    narrowed boolean := false;
    above text := '';
    known text;
    path text := current_setting('search_path');
    upper jsonb;
    found jsonb;
    beyond jsonb;
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces WHERE id = space;
    SELECT * INTO tables FROM neural.space_tables(space);
    IF s.source = 'neural.documents' AND s.reads IS NULL THEN
        s.reads := neural.searchable_rows(s.id);
    END IF;
    keys := (SELECT string_agg(pg_catalog.format('r.%I', n), ', ') FROM pg_catalog.unnest(tables.key_names) n);
    typed := (SELECT string_agg(pg_catalog.format('($1 ->> %s)::%s', n.place - 1, n.type), ', ' ORDER BY n.place)
                FROM pg_catalog.unnest(tables.key_types) WITH ORDINALITY AS n(type, place));
    IF after IS NOT NULL THEN
        above := pg_catalog.format('WHERE (%s) > (%s)', keys, typed);
    END IF;
    IF NOT neural.may_read_contents(s.relation) THEN  -- nothing that the owner has written is executed: keys alone
        narrowed := s.reads ~* '\mwhere\M';  -- not all rows are searchable, and which are cannot be told
        s.reads := (SELECT pg_catalog.format('SELECT %s FROM %s s', string_agg(pg_catalog.format('s.%I AS %I', k, 'source_' || k), ', '), s.relation)
                      FROM pg_catalog.unnest(neural.key_columns(s.relation)) k);
    ELSIF tables.chunks IS NOT NULL AND s.revision <> 'given' THEN
        hashed := neural.source_hash(s);
        IF s.source = 'neural.documents' THEN  -- what is no text is elsewhere: who indexes it again finds out whether it has changed
            untold := ' AND NOT EXISTS (SELECT FROM neural.documents d WHERE d.id = r.source_id AND d.modality <> ''text'' AND c.text = '''')';
        END IF;
    END IF;
    known := pg_catalog.format('NOT EXISTS (SELECT FROM neural.pending p WHERE p.space_id = %1$s AND p.key = pg_catalog.jsonb_build_array(%2$s))
                     AND pg_catalog.jsonb_build_array(%2$s) NOT IN (SELECT jsonb_array_elements(c.keys) FROM neural.changes c WHERE c.space_id = %1$s)
                     AND NOT EXISTS (SELECT FROM neural.failed f WHERE f.space_id = %1$s AND f.key = pg_catalog.jsonb_build_array(%2$s))', space, '%1$s');
    PERFORM set_config('search_path', neural.reading_path(s.source), true);
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.count(*), (pg_catalog.array_agg(pg_catalog.jsonb_build_array(%1$s) ORDER BY %2$s))[1] FROM (SELECT * FROM (%3$s) r %4$s ORDER BY %1$s LIMIT %5$s) r',
        keys, (SELECT string_agg(pg_catalog.format('r.%I DESC', n), ', ') FROM pg_catalog.unnest(tables.key_names) n), s.reads, above, most)
      INTO missing, last USING after;
    upper := CASE WHEN missing = most THEN last END;  -- NULL at the end of the table: what is kept beyond it is of no row
    LOOP
        BEGIN
            EXECUTE pg_catalog.format(
                'SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(%1$s)) FILTER (WHERE t."there" IS NULL),
                        pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(%1$s)) FILTER (WHERE t."there" AND r."its hash" IS DISTINCT FROM c.source_hash%11$s)
                   FROM (SELECT r.*, %2$s AS "its hash" FROM (SELECT * FROM (%3$s) r %4$s ORDER BY %1$s LIMIT %5$s) r) r
                   LEFT JOIN (SELECT true AS "there", t.* FROM %6$s t) t ON %7$s
                   LEFT JOIN %8$s c ON %9$s
                  WHERE (t."there" IS NULL OR r."its hash" IS DISTINCT FROM c.source_hash) AND %10$s',
                keys, coalesce(hashed, 'NULL::bytea'), s.reads, above, most, tables.terms,
                neural.same_columns('t', 'r', tables.key_names, s.relation),
                CASE WHEN hashed IS NULL THEN '(SELECT NULL::bytea AS source_hash)' ELSE tables.chunks END,
                CASE WHEN hashed IS NULL THEN 'true'
                     ELSE neural.same_columns('c', 'r', tables.key_names, s.relation) || ' AND c.ordinal = 0' END,
                pg_catalog.format(known, keys), CASE WHEN hashed IS NOT NULL THEN untold END) INTO found, beyond USING after;
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
        keys, pg_catalog.concat_ws(' UNION ALL ', pg_catalog.format('SELECT %s FROM %s r', keys, tables.terms),
                        CASE WHEN tables.chunks IS NOT NULL THEN pg_catalog.format('SELECT %s FROM %s r', keys, tables.chunks) END),
        CASE WHEN after IS NULL THEN '' ELSE pg_catalog.format('(%s) > (%s) AND', keys, typed) END,
        CASE WHEN upper IS NULL THEN '' ELSE pg_catalog.format('(%s) <= (%s) AND', keys, replace(typed, '$1', '$2')) END,
        s.reads, neural.same_columns('s', 'r', tables.key_names, s.relation), pg_catalog.format(known, keys)) INTO beyond USING after, upper;
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
        SELECT 'coalesce(r.title::text, '''')' AS title, 'coalesce(r.content::text, '''')' AS content,
               -- read by the statement that reads the chunks: a worker may store the revision and all chunks meanwhile
               pg_catalog.format('(SELECT %se.max_tokens || '' '' || e.overlap FROM neural.spaces e WHERE e.id = %s)',
                                 CASE WHEN s.source = 'neural.documents' THEN 'e.revision || '' '' || ' ELSE '' END, s.id) AS how
    )
    SELECT pg_catalog.format(  -- as pgneural.types.fingerprint; a row without text has no chunks
        'CASE WHEN btrim(%1$s || %2$s, %5$L) <> '''' THEN
              substring(sha256(pg_catalog.convert_to(pg_catalog.format(''[%%s, %%s, %4$s%%s]'', octet_length(%1$s), octet_length(%2$s), octet_length(%3$s))
                                          || %1$s || %2$s || %3$s, ''UTF8'')) FROM 1 FOR 16) END',
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
    terms text := (SELECT k.terms FROM neural.space_tables(space) k);
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
             UNION SELECT to_regclass(k) FROM neural.space_tables(space) tables, unnest(ARRAY[tables.chunks, tables.terms]) k) t
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
        EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s', (SELECT k.terms FROM neural.space_tables(space) k)) INTO words;
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
