-- A search of a table, without Python: `SELECT neural.watch('articles', '{title,body}')`.
-- It makes what `Searchable` and `op.create_search` make (store/schema.py, store/declared.py; a test compares them).

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
    chunks text := format('%I.%I', schema, name);
    terms text := format('%I.%I', schema, name || '_terms');
    keys text[] := neural.key_columns(source);
    inherited boolean := EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent
                                  WHERE i.inhparent = source AND c.relkind = 'r');
    missing text;
    typed text;
    followed text;
    reads text;
    watched text[] := columns || language_by;
    method text := 'hnsw';
    precision text;
    space bigint;
    event record;
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
    SELECT string_agg(format('%I %s NOT NULL', 'source_' || k, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY place),
           string_agg(quote_ident('source_' || k), ', ' ORDER BY place),
           string_agg(format('s.%I AS %I', k, 'source_' || k), ', ' ORDER BY place)
      INTO typed, followed, reads
      FROM unnest(keys) WITH ORDINALITY AS every(k, place) JOIN pg_attribute a ON a.attrelid = source AND a.attname = k;
    reads := format('SELECT %s, %s AS title, %s AS content, %s AS language FROM %I.%I s', reads,
        CASE WHEN cardinality(columns) > 1 THEN format('s.%I::text', columns[1]) ELSE 'NULL::text' END,
        CASE WHEN cardinality(columns) > 2
             THEN format('concat_ws(E''\n\n'', %s)', (SELECT string_agg(format('s.%I::text', c), ', ' ORDER BY place)
                                                          FROM unnest(columns[2:]) WITH ORDINALITY AS u(c, place)))
             ELSE format('s.%I::text', columns[cardinality(columns)]) END,
        CASE WHEN language_by IS NULL THEN 'NULL::text' ELSE format('s.%I::text', language_by) END, schema, (SELECT relname FROM pg_class WHERE oid = source));
    EXECUTE format(
        'CREATE TABLE %1$s (%2$s, ordinal integer NOT NULL, text text NOT NULL, locator jsonb NOT NULL, hash bytea NOT NULL,
                            source_hash bytea NOT NULL, embedding vector(%3$s) NOT NULL,
                            CONSTRAINT %4$I PRIMARY KEY (%5$s, ordinal))', chunks, typed, dimensions, name || '_pkey', followed);
    EXECUTE format(
        'CREATE TABLE %1$s (%2$s, language text NOT NULL, lexemes tsvector NOT NULL, length double precision NOT NULL,
                            weights sparsevec(1000000000) NOT NULL, CONSTRAINT %3$I PRIMARY KEY (%4$s))',
        terms, typed, name || '_terms_pkey', followed);
    EXECUTE format('CREATE INDEX %I ON %s USING gin (lexemes)', name || '_terms_idx', terms);
    IF dimensions <= 1900 THEN  -- it fits the row
        EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN', chunks);
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN weights SET STORAGE MAIN', terms);
    IF NOT inherited THEN  -- a foreign key does not reach the rows of children
        FOR event IN SELECT * FROM (VALUES (chunks, name || '_source_fkey'), (terms, name || '_terms_fkey')) AS t(kept, key) LOOP
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s ON DELETE CASCADE ON UPDATE CASCADE',
                           event.kept, event.key, followed, source);
        END LOOP;
    END IF;
    IF method <> 'none' THEN
        EXECUTE format('CREATE INDEX %I ON %s USING hnsw (%s %s) WITH (ef_construction = 128)', name || '_embedding_idx', chunks,
            CASE WHEN precision = 'full' THEN 'embedding'
                 WHEN distance = 'cosine' THEN format('(l2_normalize(embedding)::halfvec(%s))', dimensions)
                 ELSE format('(embedding::halfvec(%s))', dimensions) END,
            CASE precision WHEN 'full' THEN 'vector_' ELSE 'halfvec_' END
                || CASE distance WHEN 'inner_product' THEN 'ip' ELSE distance END || '_ops');
    END IF;
    DELETE FROM neural.spaces s WHERE s.source = neural.qualified(watch.source) AND s.attribute = watch.attribute;
    INSERT INTO neural.spaces (source, attribute, chunk_table, encoder, revision, options, dimensions, distance, max_tokens,
                               overlap, language, title_boost, storage, vector_index, reads, watched, sync)
    VALUES (neural.qualified(source), attribute, name, encoder, '', options, dimensions, distance, max_tokens,
            coalesce(overlap, max_tokens / 8), language, title_boost, 'vector',
            jsonb_build_object('method', method, 'precision', precision, 'dimensions', NULL, 'options', '{}'::jsonb), reads,
            jsonb_build_object(neural.qualified(source), watched), sync)
    RETURNING id INTO space;
    FOR event IN SELECT * FROM (VALUES ('INSERT', 'REFERENCING NEW TABLE AS counted'),
                                       ('DELETE', 'REFERENCING OLD TABLE AS counted'), ('TRUNCATE', '')) AS e(kind, referencing)
    LOOP
        EXECUTE format('CREATE TRIGGER count_%s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION neural.count_terms()',
                       lower(event.kind), event.kind, terms, event.referencing);
    END LOOP;
    PERFORM neural.watch_table(source, name, '', watched);
    PERFORM neural.follow_source(chunks::regclass, source), neural.follow_source(terms::regclass, source);
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
