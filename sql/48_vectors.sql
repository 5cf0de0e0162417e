-- Extra vectors of the chunks of a search: sparse ones, which are another leg, and those of tokens, for late interaction.
-- They are spaces, too: of their own kind, with the name and the state of the dense space whose chunks they are of.

CREATE OR REPLACE FUNCTION neural.extra_tables(space bigint)
RETURNS SETOF text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%I.%I', (parse_ident(e.source))[1], e.chunk_table)
      FROM neural.spaces s JOIN neural.spaces e ON e.source = s.source AND e.attribute = s.attribute AND e.name = s.name
           AND e.relation IS NOT DISTINCT FROM s.relation  -- and not of another table that had this name
     WHERE s.id = space AND s.kind = 'dense' AND e.kind <> 'dense' ORDER BY e.kind
$$;

COMMENT ON FUNCTION neural.extra_tables(bigint) IS 'The tables of extra vectors of the chunks of a space';

CREATE OR REPLACE FUNCTION neural.make_vectors(
    space bigint, kind text, encoder text, dimensions integer, revision text, options jsonb
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    of_documents boolean;
    schema text;
    of_space record;
    keys text;
    typed text;
    name text;
    created bigint;
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces e WHERE e.id = space;
    SELECT * INTO of_space FROM neural.space_tables(space);
    of_documents := s.source = 'neural.documents';
    schema := (parse_ident(s.source))[1];
    name := s.chunk_table || '_' || kind;
    IF of_space.chunks IS NULL THEN
        RAISE EXCEPTION 'the vectors of %.% are in column %, without chunks', s.source, s.attribute, s.vector_column
        USING ERRCODE = 'PN400', HINT = 'Make a search of columns with text.';
    ELSIF to_regclass(format('%I.%I', schema, name)) IS NOT NULL THEN
        RAISE EXCEPTION 'schema % already has a relation %', schema, name
        USING ERRCODE = 'PN400', HINT = 'Drop the search that it belongs to, or rename it.';
    END IF;
    SELECT string_agg(quote_ident(k.name), ', ' ORDER BY place), string_agg(format('%I %s NOT NULL', k.name, k.type), ', ' ORDER BY place)
      INTO keys, typed FROM unnest(of_space.key_names, of_space.key_types) WITH ORDINALITY AS k(name, type, place);
    INSERT INTO neural.spaces (source, relation, attribute, kind, name, state, chunk_table, encoder, revision, options, dimensions,
                               distance, max_tokens, overlap, storage, vector_index)
    VALUES (s.source, s.relation, s.attribute, kind, s.name, s.state, name, encoder, revision, options, dimensions,
            'inner_product', s.max_tokens, s.overlap, CASE kind WHEN 'sparse' THEN 'sparsevec' ELSE 'halfvec' END,
            jsonb_build_object('method', CASE kind WHEN 'sparse' THEN 'hnsw' ELSE 'none' END, 'precision', 'full',
                               'dimensions', NULL, 'options', '{}'::jsonb))
    RETURNING id INTO created;
    EXECUTE format('CREATE TABLE %I.%I (%s, ordinal integer NOT NULL, embedding %s NOT NULL, CONSTRAINT %I PRIMARY KEY (%s, ordinal))',
                   schema, name, typed,
                   CASE kind WHEN 'sparse' THEN format('%s(%s)', neural.vector_name('sparsevec'), dimensions)
                             ELSE format('%s(%s)[]', neural.vector_name('halfvec'), dimensions) END,
                   name || '_pkey', keys);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', schema, name, format('%s vectors of the chunks in %s', kind, of_space.chunks));
    PERFORM neural.bind_vectors(space);
    IF NOT of_documents OR s.state <> 'serving' THEN  -- that of a new collection is made after its first load
        PERFORM neural.make_index(created);
    END IF;
    PERFORM neural.follow_source(to_regclass(format('%I.%I', schema, name)), s.relation);
    RETURN created;
END
$$;

COMMENT ON FUNCTION neural.make_vectors(bigint, text, text, integer, text, jsonb) IS
'Makes the table of extra vectors of the chunks of one space; see add_vectors';

CREATE OR REPLACE FUNCTION neural.bind_vectors(space bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_space record;
    extra text;
    keys text;
BEGIN
    SELECT * INTO of_space FROM neural.space_tables(space);
    keys := (SELECT string_agg(quote_ident(k.name), ', ' ORDER BY place) FROM unnest(of_space.key_names) WITH ORDINALITY AS k(name, place));
    FOR extra IN SELECT t.name FROM neural.extra_tables(space) AS t(name)
                 WHERE to_regclass(t.name) IS NOT NULL
                   AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = to_regclass(t.name) AND c.contype = 'f')
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s, ordinal) REFERENCES %s ON DELETE CASCADE',
                       extra, (parse_ident(extra))[2] || '_fkey', keys, of_space.chunks);
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.bind_vectors(bigint) IS
'Has the extra vectors of a space go with their chunks: the foreign keys that are missing are made';

CREATE OR REPLACE FUNCTION neural.add_vectors(
    source regclass, attribute text, kind text, encoder text, dimensions integer,
    revision text DEFAULT '', options jsonb DEFAULT '{}'
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    found_one boolean := false;
    lacked_one boolean := false;
BEGIN
    IF kind NOT IN ('sparse', 'tokens') THEN
        RAISE EXCEPTION 'the kind of the vectors is %, expected sparse or tokens', kind USING ERRCODE = 'PN400';
    END IF;
    PERFORM neural.lock_search(source, attribute);
    FOR s IN SELECT * FROM neural.spaces e WHERE e.relation = add_vectors.source AND e.attribute = add_vectors.attribute
                AND e.kind = 'dense' ORDER BY e.id
    LOOP
        found_one := true;
        CONTINUE WHEN EXISTS (SELECT FROM neural.spaces e WHERE e.relation = s.relation AND e.attribute = s.attribute
                                 AND e.name = s.name AND e.kind = add_vectors.kind);
        lacked_one := true;
        PERFORM neural.make_vectors(s.id, kind, encoder, dimensions, revision, options);
        IF s.reads IS NOT NULL THEN
            PERFORM neural.mark_all(s.id, source);
        END IF;
    END LOOP;
    IF NOT found_one THEN
        RAISE EXCEPTION 'table % has no search %', source, attribute
        USING ERRCODE = 'PN404', HINT = 'neural.status lists them.';
    ELSIF NOT lacked_one THEN
        RAISE EXCEPTION '%.% has vectors of kind % already', source, attribute, kind
        USING ERRCODE = 'PN400', HINT = 'neural.drop_vectors drops them.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.add_vectors(regclass, text, text, text, integer, text, jsonb) IS
'Gives a search extra vectors of its chunks. Kind sparse: by a learned sparse encoder, another leg of hybrid searches. Kind tokens:
one for each token, for late interaction. Workers encode the rows that are there, and those that change, by this encoder, too';

CREATE OR REPLACE FUNCTION neural.drop_vectors_of(space bigint, kind text DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    e neural.spaces;
    dropped integer := 0;
BEGIN
    FOR e IN SELECT x.* FROM neural.spaces s JOIN neural.spaces x ON x.source = s.source AND x.attribute = s.attribute AND x.name = s.name
                    AND x.relation IS NOT DISTINCT FROM s.relation
              WHERE s.id = space AND s.kind = 'dense' AND x.kind <> 'dense' AND x.kind = coalesce(drop_vectors_of.kind, x.kind)
    LOOP
        PERFORM neural.drop_search_table(format('%I.%I', (parse_ident(e.source))[1], e.chunk_table), e.relation);
        DELETE FROM neural.spaces d WHERE d.id = e.id;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION neural.drop_vectors_of(bigint, text) IS
'Drops the extra vectors of one space, of one kind or all; returns how many kinds there were';

CREATE OR REPLACE FUNCTION neural.drop_vectors(source regclass, attribute text, kind text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped integer;
BEGIN
    PERFORM neural.lock_search(source, attribute);
    dropped := (SELECT sum(neural.drop_vectors_of(s.id, drop_vectors.kind)) FROM neural.spaces s
                 WHERE s.relation = drop_vectors.source AND s.attribute = drop_vectors.attribute AND s.kind = 'dense');
    IF dropped IS NULL OR (dropped = 0 AND kind IS NOT NULL) THEN
        RAISE EXCEPTION 'table % has no search % with vectors of kind %', source, attribute, coalesce(kind, 'sparse or tokens')
        USING ERRCODE = 'PN404', HINT = 'neural.spaces lists them.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.drop_vectors(regclass, text, text) IS
'Drops the extra vectors of a search, of one kind or all';
