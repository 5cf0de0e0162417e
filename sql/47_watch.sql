-- A search of a table, without Python: `SELECT neural.watch('articles', '{title,body}')`.
-- It makes what `Searchable` and `op.create_search` make (store/schema.py, store/declared.py; a test compares them).

CREATE OR REPLACE FUNCTION neural.make_tables(space bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
    schema text;
    source regclass;
    chunks text;
    terms text;
    typed text;
    followed text;
    event record;
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces WHERE id = space;
    schema := (parse_ident(s.source))[1];
    source := s.source::regclass;
    chunks := format('%I.%I', schema, s.chunk_table);
    terms := format('%I.%I', schema, s.chunk_table || '_terms');
    SELECT string_agg(format('%I %s NOT NULL', 'source_' || k, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY place),
           string_agg(quote_ident('source_' || k), ', ' ORDER BY place)
      INTO typed, followed
      FROM unnest(neural.key_columns(source)) WITH ORDINALITY AS every(k, place)
      JOIN pg_attribute a ON a.attrelid = source AND a.attname = k;
    EXECUTE format(
        'CREATE TABLE %1$s (%2$s, ordinal integer NOT NULL, text text NOT NULL, locator jsonb NOT NULL, hash bytea NOT NULL,
                            source_hash bytea NOT NULL, embedding %3$s(%4$s) NOT NULL,
                            CONSTRAINT %5$I PRIMARY KEY (%6$s, ordinal))',
        chunks, typed, s.storage, s.dimensions, s.chunk_table || '_pkey', followed);
    EXECUTE format(
        'CREATE TABLE %1$s (%2$s, language text NOT NULL, lexemes tsvector NOT NULL, length double precision NOT NULL,
                            weights sparsevec(1000000000) NOT NULL, CONSTRAINT %3$I PRIMARY KEY (%4$s))',
        terms, typed, s.chunk_table || '_terms_pkey', followed);
    EXECUTE format('CREATE INDEX %I ON %s USING gin (lexemes)', s.chunk_table || '_terms_idx', terms);
    IF (s.dimensions * CASE s.storage WHEN 'vector' THEN 4 WHEN 'halfvec' THEN 2 ELSE 0.125 END <= 7600) THEN  -- it fits the row
        EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN', chunks);
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN weights SET STORAGE MAIN', terms);
    IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent WHERE i.inhparent = source AND c.relkind = 'r') THEN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', source);  -- as a foreign key would: nobody writes unnoticed
    END IF;
    FOR event IN SELECT * FROM (VALUES (chunks, s.chunk_table || '_source_fkey'), (terms, s.chunk_table || '_terms_fkey'))
                               AS t(kept, key)
    LOOP  -- a foreign key does not reach the rows of tables that inherit
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent
                               WHERE i.inhparent = source AND c.relkind = 'r');
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s ON DELETE CASCADE ON UPDATE CASCADE',
                       event.kept, event.key, followed, source);
    END LOOP;
    FOR event IN SELECT * FROM (VALUES ('INSERT', 'REFERENCING NEW TABLE AS counted'),
                                       ('DELETE', 'REFERENCING OLD TABLE AS counted'), ('TRUNCATE', '')) AS e(kind, referencing)
    LOOP
        EXECUTE format('CREATE TRIGGER count_%s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION neural.count_terms()',
                       lower(event.kind), event.kind, terms, event.referencing);
    END LOOP;
    PERFORM neural.follow_source(chunks::regclass, source), neural.follow_source(terms::regclass, source);
END
$$;

COMMENT ON FUNCTION neural.make_tables(bigint) IS
'Makes the chunk table and the terms table of a space, as neural.spaces describes it, without the vector index';

CREATE OR REPLACE FUNCTION neural.index_definition(space bigint)
RETURNS text
LANGUAGE sql STABLE STRICT
AS $$
    SELECT format('%I ON %I.%I USING %s (%s %s_%s_ops)%s', s.chunk_table || '_embedding_idx', (parse_ident(s.source))[1],
                  s.chunk_table, i.method,
                  CASE WHEN i.kept = s.storage AND i.length = s.dimensions THEN 'embedding'
                       WHEN i.kept = 'bit' THEN format('(binary_quantize(%s)::bit(%s))', i.part, i.length)
                       WHEN i.kept = 'halfvec' AND s.distance = 'cosine'
                       THEN format('(l2_normalize(%s)::halfvec(%s))', i.part, i.length)
                       ELSE format('(%s::%s(%s))', i.part, i.kept, i.length) END,
                  i.kept,
                  CASE WHEN i.kept = 'bit' AND s.storage <> 'bit' THEN 'hamming'
                       WHEN s.distance = 'inner_product' THEN 'ip' ELSE s.distance END,
                  CASE WHEN i.options <> '' THEN ' WITH (' || i.options || ')' ELSE '' END)
      FROM neural.spaces s
     CROSS JOIN LATERAL (
           SELECT s.vector_index ->> 'method' AS method,
                  coalesce((s.vector_index ->> 'dimensions')::integer, s.dimensions) AS length,
                  CASE WHEN s.vector_index ->> 'dimensions' IS NULL THEN 'embedding'
                       ELSE format('subvector(embedding, 1, %s)', s.vector_index ->> 'dimensions') END AS part,
                  CASE s.vector_index ->> 'precision' WHEN 'binary' THEN 'bit' WHEN 'half' THEN 'halfvec' ELSE s.storage END AS kept,
                  (SELECT coalesce(string_agg(format('%I = %s', o.key, o.value), ', ' ORDER BY o.key), '')
                     FROM jsonb_each_text(CASE s.vector_index ->> 'method' WHEN 'hnsw' THEN '{"ef_construction": 128}'::jsonb
                                          ELSE '{}'::jsonb END || (s.vector_index -> 'options')) o) AS options) i
     WHERE s.id = space AND i.method <> 'none'
$$;

COMMENT ON FUNCTION neural.index_definition(bigint) IS
'The vector index of a space, as what follows CREATE INDEX or CREATE INDEX CONCURRENTLY; NULL where it has none';

CREATE OR REPLACE FUNCTION neural.make_index(space bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF neural.index_definition(space) IS NOT NULL THEN
        EXECUTE 'CREATE INDEX ' || neural.index_definition(space);
    END IF;
END
$$;

COMMENT ON FUNCTION neural.make_index(bigint) IS
'Makes the vector index of a space at once; CREATE INDEX CONCURRENTLY with index_definition lets others write meanwhile';

CREATE OR REPLACE FUNCTION neural.watch(
    source regclass,
    columns text[],
    attribute text DEFAULT 'search',
    encoder text DEFAULT 'minilm',
    dimensions integer DEFAULT NULL,
    distance text DEFAULT 'cosine',
    language text DEFAULT 'english',
    language_by text DEFAULT NULL,
    max_tokens integer DEFAULT 512,
    overlap integer DEFAULT NULL,
    title_boost double precision DEFAULT 1,
    options jsonb DEFAULT '{}',
    sync text DEFAULT 'queue'
)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
    name text := (SELECT relname FROM pg_class WHERE oid = source) || '_' || attribute;
    keys text[] := neural.key_columns(source);
    missing text;
    reads text;
    watched text[] := columns || language_by;
    method text := 'hnsw';
    precision text;
    space bigint;
BEGIN
    IF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key', source USING ERRCODE = 'PN400', HINT = 'Give it one.';
    ELSIF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'no columns of % are to be searched', source USING ERRCODE = 'PN400', HINT = 'Name one at least.';
    ELSIF octet_length(name) > 39 THEN
        RAISE EXCEPTION 'the name of the chunk table, %, has % bytes, expected at most 39', name, octet_length(name)
        USING ERRCODE = 'PN400', HINT = 'Give a shorter attribute.';
    END IF;
    SELECT w INTO missing FROM unnest(watch.columns || watch.language_by) w
     WHERE w IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = w
                                            AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', source, missing
        USING ERRCODE = 'PN400', HINT = 'Name columns of the table; a generated one (STORED) for an expression.';
    END IF;
    dimensions := coalesce(dimensions, CASE WHEN encoder = 'minilm' THEN 384 WHEN encoder = 'hash' THEN 256 END,
                           (SELECT s.dimensions FROM neural.spaces s WHERE s.encoder = watch.encoder
                               AND s.options = watch.options LIMIT 1));
    IF dimensions IS NULL THEN
        RAISE EXCEPTION 'how many dimensions the vectors of % have is not known here', encoder
        USING ERRCODE = 'PN400', HINT = 'Give dimensions =>.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_ts_config WHERE cfgname = watch.language) THEN
        RAISE EXCEPTION 'the server has no text search configuration %', language
        USING ERRCODE = 'PN400', HINT = 'psql lists them with \dF.';
    END IF;
    IF distance NOT IN ('cosine', 'l2', 'inner_product', 'l1') THEN
        RAISE EXCEPTION 'the distance is %, expected cosine, l2, inner_product or l1', distance USING ERRCODE = 'PN400';
    ELSIF sync NOT IN ('queue', 'inline', 'manual') THEN
        RAISE EXCEPTION 'sync is %, expected queue, inline or manual', sync USING ERRCODE = 'PN400';
    END IF;
    precision := CASE WHEN distance = 'cosine' OR dimensions > 2000 THEN 'half' ELSE 'full' END;  -- as Python chooses
    IF dimensions > 4000 THEN
        method := 'none';
        RAISE WARNING 'pgvector indexes 4000 dimensions, these vectors have %: they get no index', dimensions;
    END IF;
    watched := array_remove(watched, NULL);
    reads := (SELECT string_agg(format('s.%I AS %I', k, 'source_' || k), ', ' ORDER BY place)
                FROM unnest(keys) WITH ORDINALITY AS every(k, place));
    reads := format('SELECT %s, %s AS title, %s AS content, %s AS language FROM %I.%I s', reads,
        CASE WHEN cardinality(columns) > 1 THEN format('s.%I::text', columns[1]) ELSE 'NULL::text' END,
        CASE WHEN cardinality(columns) > 2
             THEN format('concat_ws(E''\n\n'', %s)', (SELECT string_agg(format('s.%I::text', c), ', ' ORDER BY place)
                                                          FROM unnest(columns[2:]) WITH ORDINALITY AS u(c, place)))
             ELSE format('s.%I::text', columns[cardinality(columns)]) END,
        CASE WHEN language_by IS NULL THEN 'NULL::text' ELSE format('s.%I::text', language_by) END,
        schema, (SELECT relname FROM pg_class WHERE oid = source));
    DELETE FROM neural.spaces s WHERE s.source = neural.qualified(watch.source) AND s.attribute = watch.attribute;
    INSERT INTO neural.spaces (source, attribute, chunk_table, encoder, revision, options, dimensions, distance, max_tokens,
                               overlap, language, title_boost, storage, vector_index, reads, watched, sync)
    VALUES (neural.qualified(source), attribute, name, encoder, '', options, dimensions, distance, max_tokens,
            coalesce(overlap, max_tokens / 8), language, title_boost, 'vector',
            jsonb_build_object('method', method, 'precision', precision, 'dimensions', NULL, 'options', '{}'::jsonb), reads,
            jsonb_build_object(neural.qualified(source), watched), sync)
    RETURNING id INTO space;
    PERFORM neural.make_tables(space);
    PERFORM neural.make_index(space);
    PERFORM neural.watch_table(source, name, '', watched);
    PERFORM neural.mark_all(space, source);
    RETURN space;
END
$$;

COMMENT ON FUNCTION neural.watch IS
'Makes a search of a table: its tables of chunks and words, and triggers that note what changes. Of several columns the first
is the title. Workers (pgneural worker) encode the rows, those that are there already too; its words are found at once';

CREATE OR REPLACE FUNCTION neural.unwatch(source regclass, attribute text DEFAULT 'search')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    space record;
    schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
BEGIN
    IF NOT EXISTS (SELECT FROM neural.spaces s WHERE s.source = neural.qualified(unwatch.source)
                      AND s.attribute = unwatch.attribute) THEN
        RAISE EXCEPTION 'table % has no search %', source, attribute
        USING ERRCODE = 'PN404', HINT = 'neural.status lists them.';
    END IF;
    FOR space IN SELECT s.chunk_table FROM neural.spaces s
                  WHERE s.source = neural.qualified(unwatch.source) AND s.attribute = unwatch.attribute LOOP
        PERFORM neural.unwatch_table(space.chunk_table, '');
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', schema, space.chunk_table || '_terms');
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', schema, space.chunk_table);
    END LOOP;
    DELETE FROM neural.spaces s WHERE s.source = neural.qualified(unwatch.source) AND s.attribute = unwatch.attribute;
END
$$;

COMMENT ON FUNCTION neural.unwatch(regclass, text) IS
'The reverse of watch: drops a search of a table with its chunks and words; the table stays as it is';
