-- A search of a table, without Python: `SELECT neural.watch('articles', '{title,body}')`.
-- It makes what `Searchable` and `op.create_search` make (store/tables.py, store/definition.py; a test compares them).

CREATE OR REPLACE FUNCTION neural.vector_name(name text)
RETURNS text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%I.%I', CASE WHEN name = 'bit' THEN 'pg_catalog' ELSE n.nspname END, name)
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
$$;

COMMENT ON FUNCTION neural.vector_name(text) IS
'The name of a type, a function or an operator class of pgvector with its schema, whatever the search_path';

CREATE OR REPLACE FUNCTION neural.drop_search_table(name text, source regclass)
RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped regclass := to_regclass(name);
BEGIN
    IF dropped IS NOT NULL THEN
        PERFORM neural.require_search_table(dropped, source);
        EXECUTE format('DROP TABLE %s', dropped);
    END IF;
END
$$;

COMMENT ON FUNCTION neural.drop_search_table(text, regclass) IS
'Drops a table of chunks, words or vectors, whose name the owner of its source may write into the catalog: only one of the same
owner, or that looks like such a table (neural.require_search_table)';

CREATE OR REPLACE FUNCTION neural.count_words_of(terms regclass)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event record;
BEGIN
    FOR event IN SELECT * FROM (VALUES ('INSERT', 'REFERENCING NEW TABLE AS counted'),
                                       ('DELETE', 'REFERENCING OLD TABLE AS counted'), ('TRUNCATE', '')) AS e(kind, referencing)
    LOOP
        EXECUTE format('CREATE TRIGGER count_%s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION neural.count_terms()',
                       lower(event.kind), event.kind, terms, event.referencing);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.count_words_of(regclass) IS 'Has the words of a terms table counted: makes its triggers';

CREATE OR REPLACE FUNCTION neural.make_tables(space bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    schema text;
    source regclass;
    chunks text;
    terms text;
    typed text;
    followed text;
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
        chunks, typed, neural.vector_name(s.storage), s.dimensions, s.chunk_table || '_pkey', followed);
    EXECUTE format(
        'CREATE TABLE %1$s (%2$s, language text NOT NULL, lexemes tsvector NOT NULL, length double precision NOT NULL,
                            weights %5$s(%6$s) NOT NULL, parts tsvector[],
                            more_weights %5$s(%6$s)[], CONSTRAINT %3$I PRIMARY KEY (%4$s))',
        terms, typed, s.chunk_table || '_terms_pkey', followed, neural.vector_name('sparsevec'), 1000000000 /* = tables.TERM_DIMENSIONS */);
    IF source <> 'neural.documents'::regclass OR s.state <> 'serving' THEN  -- that of a new collection is made after its first load
        EXECUTE format('CREATE INDEX %I ON %s USING gin (lexemes)', s.chunk_table || '_terms_idx', terms);
    END IF;
    IF (s.dimensions * CASE s.storage WHEN 'vector' THEN 4 WHEN 'halfvec' THEN 2 ELSE 0.125 END <= 7600 /* = 4 * tables.INLINE_DIMENSIONS */) THEN  -- it fits the row
        EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN', chunks);
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN weights SET STORAGE MAIN', terms);
    -- no foreign key to a table of the user's: it would stand in the way of TRUNCATE, of partitions and of changes of its key
    IF source = 'neural.documents'::regclass THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s ON DELETE CASCADE ON UPDATE CASCADE',
                       chunks, s.chunk_table || '_source_fkey', followed, source);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s ON DELETE CASCADE ON UPDATE CASCADE',
                       terms, s.chunk_table || '_terms_fkey', followed, source);
    ELSE  -- as a foreign key would: nobody writes unnoticed meanwhile
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', source);
    END IF;
    PERFORM neural.count_words_of(terms::regclass);
    PERFORM neural.follow_source(chunks::regclass, source), neural.follow_source(terms::regclass, source);
END
$$;

COMMENT ON FUNCTION neural.make_tables(bigint) IS
'Makes the chunk table and the terms table of a space, as neural.spaces describes it, without the vector index';

CREATE OR REPLACE FUNCTION neural.index_definition(space bigint, index jsonb DEFAULT NULL, name text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format('%I ON %I.%I USING %I (%s %s)%s', coalesce(index_definition.name, s.chunk_table || '_embedding_idx'), (parse_ident(s.source))[1],
                  s.chunk_table, i.method,
                  CASE WHEN i.type = s.storage AND i.length = s.dimensions THEN 'embedding'
                       WHEN i.type = 'bit' THEN format('(%s(%s)::bit(%s))', neural.vector_name('binary_quantize'), i.part, i.length)
                       WHEN i.type = 'halfvec' AND s.distance = 'cosine'
                       THEN format('(%s(%s)::%s(%s))', neural.vector_name('l2_normalize'), i.part, neural.vector_name('halfvec'), i.length)
                       ELSE format('(%s::%s(%s))', i.part, neural.vector_name(i.type), i.length) END,
                  neural.vector_name(format('%s_%s_ops', i.type,
                         CASE WHEN i.type = 'bit' AND s.storage <> 'bit' THEN 'hamming'
                              WHEN s.distance = 'inner_product' THEN 'ip' ELSE s.distance END)),
                  CASE WHEN i.options <> '' THEN ' WITH (' || i.options || ')' ELSE '' END)
      FROM neural.spaces s
     CROSS JOIN LATERAL (SELECT coalesce(index_definition.index, s.vector_index) AS index) v
     CROSS JOIN LATERAL (
           SELECT v.index ->> 'method' AS method,
                  coalesce((v.index ->> 'dimensions')::integer, s.dimensions) AS length,
                  CASE WHEN v.index ->> 'dimensions' IS NULL THEN 'embedding'
                       ELSE format('%s(embedding, 1, %s)', neural.vector_name('subvector'), (v.index ->> 'dimensions')::integer) END AS part,
                  CASE WHEN s.storage IN ('bit', 'sparsevec') THEN s.storage  -- of which there is one precision
                       WHEN v.index ->> 'precision' = 'binary' THEN 'bit'
                       WHEN v.index ->> 'precision' = 'half' THEN 'halfvec' ELSE s.storage END AS type,
                  (SELECT coalesce(string_agg(format('%I = %s', o.key, o.value::numeric), ', ' ORDER BY o.key), '')
                     FROM jsonb_each_text(CASE v.index ->> 'method'
                          WHEN 'hnsw' THEN jsonb_build_object('ef_construction', greatest(128 /* = vectors.EF_CONSTRUCTION */,
                               2 * (v.index #>> '{options,m}')::integer))
                          ELSE '{}'::jsonb END || (v.index -> 'options')) o) AS options) i
     WHERE s.id = space AND i.method <> 'none'
$$;

COMMENT ON FUNCTION neural.index_definition(bigint, jsonb, text) IS
'The vector index of a space, as what follows CREATE INDEX or CREATE INDEX CONCURRENTLY; NULL where it has none. Another kind of index, in the form of neural.spaces.vector_index, and another name can be given';

CREATE OR REPLACE FUNCTION neural.make_index(space bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF neural.index_definition(space) IS NOT NULL THEN
        EXECUTE 'CREATE INDEX ' || neural.index_definition(space);
    END IF;
END
$$;

COMMENT ON FUNCTION neural.make_index(bigint) IS
'Makes the vector index of a space at once; CREATE INDEX CONCURRENTLY with index_definition lets others write meanwhile';

CREATE OR REPLACE FUNCTION neural.index_is_there(space bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    valid boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('pgneural index aside ' || space, 0));  -- nobody sets it aside meanwhile
    SELECT * INTO s FROM neural.spaces WHERE id = space;
    SELECT i.indisvalid INTO valid FROM pg_index i
     WHERE i.indexrelid = to_regclass(format('%I.%I', (parse_ident(s.source))[1], s.chunk_table || '_embedding_idx'));
    IF valid THEN
        UPDATE neural.spaces SET index_waits = false WHERE id = space AND index_waits;
    END IF;
    RETURN valid;
END
$$;

COMMENT ON FUNCTION neural.index_is_there(bigint) IS
'Whether the vector index of a space is valid; NULL if there is none. One that is valid does not wait to be made any more';

CREATE OR REPLACE FUNCTION neural.set_index_aside(space bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    chunks regclass := to_regclass((SELECT k.chunks FROM neural.space_tables(space) k));
    worth integer := 2000 /* = indexes.WORTH_INDEXING */;
    found record;
    few boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pgneural index aside ' || space, 0)) THEN
        RETURN false;  -- somebody else is at it
    END IF;
    SELECT * INTO s FROM neural.spaces WHERE id = space;
    SELECT i.indexrelid::regclass AS index INTO found FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
     WHERE i.indrelid = chunks AND c.relname = s.chunk_table || '_embedding_idx'
       AND a.amname = s.vector_index ->> 'method' AND i.indpred IS NULL;  -- as it will be made again
    IF found IS NULL OR s.index_waits OR NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = chunks), 'USAGE')
       OR (SELECT count(*) FROM (SELECT FROM neural.pending WHERE space_id = space LIMIT worth) p)
          + (SELECT coalesce(sum(rows), 0) FROM neural.changes WHERE space_id = space) < worth THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT count(*) < $1 FROM (SELECT FROM %s LIMIT $1) c', chunks) INTO few USING worth;
    IF NOT few THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', chunks);  -- searches would queue behind a lock that waits
    EXECUTE format('DROP INDEX IF EXISTS %s', found.index);
    UPDATE neural.spaces SET index_waits = true WHERE id = space;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;  -- somebody searches: each row is put into the index then
END
$$;

COMMENT ON FUNCTION neural.set_index_aside(bigint) IS
'Drops the vector index of a space that has next to nothing in it while thousands of rows wait: building it once over all of them
takes less time than a row at a time. Who encodes the last of them makes it again (neural.spaces.index_waits)';

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
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
    name text := (SELECT relname FROM pg_class WHERE oid = source) || '_' || attribute;
    kind "char" := (SELECT relkind FROM pg_class WHERE oid = source);
    keys text[] := neural.key_columns(source);
    missing text;
    watched text[] := array_remove(columns || language_by, NULL);
    before record;
    method text := 'hnsw';
    precision text;
    space bigint;
BEGIN
    IF kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is a %, and changes of its rows go unnoticed', source,
              CASE kind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'relation without rows' END
        USING ERRCODE = 'PN400', HINT = 'Watch the table that it is made of; a generated column (STORED) can hold an expression.';
    ELSIF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key', source USING ERRCODE = 'PN400', HINT = 'Give it one.';
    ELSIF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'no columns of % are to be searched', source USING ERRCODE = 'PN400', HINT = 'Name one at least.';
    ELSIF octet_length(name) > 49 /* = tables.NAME_BYTES */ THEN
        RAISE EXCEPTION 'the name of the chunk table, %, has % bytes, expected at most 49', name, octet_length(name)
        USING ERRCODE = 'PN400', HINT = 'Give a shorter attribute.';
    END IF;
    SELECT w INTO missing FROM unnest(watch.columns || watch.language_by) w
     WHERE w IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = w
                                            AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', source, missing
        USING ERRCODE = 'PN400', HINT = 'Name columns of the table; a generated one (STORED) for an expression.';
    END IF;
    dimensions := coalesce(dimensions, CASE encoder WHEN 'minilm' THEN 384 /* = encoders.described('minilm', {})[0] */
                                          WHEN 'hash' THEN 256 /* = encoders.described('hash', {})[0] */ END,
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
    precision := CASE WHEN distance = 'cosine' OR dimensions > 2000 /* = vectors.MOST_INDEXED['full'] */ THEN 'half' ELSE 'full' END;  -- as Python chooses
    IF dimensions > 4000 /* = vectors.MOST_INDEXED['half'] */ THEN
        method := 'none';
        RAISE WARNING 'pgvector indexes 4000 dimensions, these vectors have %: they get no index', dimensions;
    END IF;
    PERFORM neural.lock_search(source, attribute);
    FOR before IN SELECT e.*, EXISTS (SELECT FROM pg_class c WHERE c.oid = e.relation) AS there FROM neural.spaces e
                   WHERE (e.relation = watch.source OR e.source = neural.qualified(watch.source)) AND e.attribute = watch.attribute
                 ORDER BY e.kind = 'dense'
    LOOP
        IF before.there THEN
            RAISE EXCEPTION 'table % has a search % already', source, attribute
            USING ERRCODE = 'PN400', HINT = 'neural.unwatch drops it; neural.create_space makes another space of it.';
        END IF;
        PERFORM neural.drop_search_table(format('%I.%I', schema, before.chunk_table || '_terms'), source),
                neural.drop_search_table(format('%I.%I', schema, before.chunk_table), source);
        DELETE FROM neural.spaces e WHERE e.id = before.id;  -- of a table that was dropped
    END LOOP;
    INSERT INTO neural.spaces (source, relation, attribute, chunk_table, encoder, revision, options, dimensions, distance, max_tokens,
                               overlap, language, title_boost, storage, vector_index, reads, watched, fields, sync)
    VALUES (neural.qualified(source), source, attribute, name, encoder, '', options, dimensions, distance, max_tokens,
            coalesce(overlap, max_tokens / 8 /* = chunk.OVERLAP_SHARE */), language, title_boost, 'vector',
            jsonb_build_object('method', method, 'precision', precision, 'dimensions', NULL, 'options', '{}'::jsonb),
            neural.reads_of(source, columns, language_by), jsonb_build_object(neural.qualified(source), watched),
            neural.numbered(source, columns, language_by), sync)
    RETURNING id INTO space;
    PERFORM neural.make_tables(space);
    PERFORM neural.make_index(space);
    PERFORM neural.watch_table(source, name, '', watched, ARRAY[schema]::name[]);
    PERFORM neural.mark_all(space, source);
    RETURN space;
END
$$;

COMMENT ON FUNCTION neural.watch IS
'Makes a search of a table: its tables of chunks and words, and triggers that note what changes. Of several columns the first
is the title. Workers (pgneural worker) encode the rows, those that are there already too; its words are found at once';

CREATE OR REPLACE FUNCTION neural.lock_search(source regclass, attribute text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN  -- one after the other, and the table before its rows in the catalog: then nobody fails because of another
    PERFORM pg_advisory_xact_lock(hashtextextended(format('pgneural search %s', source::oid), 0));
    PERFORM FROM neural.spaces e WHERE e.relation = lock_search.source AND e.attribute = lock_search.attribute
     ORDER BY e.id FOR NO KEY UPDATE;
END
$$;

COMMENT ON FUNCTION neural.lock_search(regclass, text) IS
'Has those who make, switch and drop spaces of a table wait for each other';

CREATE OR REPLACE FUNCTION neural.unwatch_named(table_now regclass, names text[], attribute text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    space record;
    ids bigint[];
BEGIN
    PERFORM neural.lock_search(table_now, attribute);
    ids := ARRAY(SELECT s.id FROM neural.spaces s  -- also of a table that is gone, by the name that it had
                  WHERE (s.relation = table_now
                         OR (NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)
                             AND (parse_ident(s.source))[3 - cardinality(names):] = names))
                    AND s.attribute = unwatch_named.attribute AND s.source <> 'neural.documents');
    IF ids = '{}' THEN
        RAISE EXCEPTION 'table % has no search %', array_to_string(names, '.'), attribute
        USING ERRCODE = 'PN404', HINT = 'neural.status lists them.';
    END IF;
    PERFORM neural.unwatch_spaces(ids);
    FOR space IN SELECT k.chunks, k.terms, s.relation FROM neural.spaces s, neural.space_tables(s.id) k WHERE s.id = ANY (ids)
                  ORDER BY s.kind = 'dense' LOOP  -- extra vectors before their chunks
        PERFORM neural.drop_search_table(space.terms, space.relation), neural.drop_search_table(space.chunks, space.relation);
    END LOOP;
    DELETE FROM neural.changes c WHERE c.space_id = ANY (ids);
    DELETE FROM neural.spaces s WHERE s.id = ANY (ids);
END
$$;

COMMENT ON FUNCTION neural.unwatch_named(regclass, text[], text) IS
'Drops a search of a table, or of one that is gone, by the parts of the name that it had';

CREATE OR REPLACE FUNCTION neural.unwatch(source text, attribute text DEFAULT 'search')
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT neural.unwatch_named(to_regclass(source), parse_ident(source), attribute);
END;

COMMENT ON FUNCTION neural.unwatch(text, text) IS
'The reverse of watch: drops a search of a table with its chunks and words; the table stays as it is. The table may be gone already';

CREATE OR REPLACE FUNCTION neural.unwatch(source regclass, attribute text DEFAULT 'search')
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT neural.unwatch_named(source, parse_ident(neural.qualified(source)), attribute);
END;

COMMENT ON FUNCTION neural.unwatch(regclass, text) IS
'The reverse of watch: drops a search of a table with its chunks and words; the table stays as it is';
