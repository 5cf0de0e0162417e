-- Several spaces of one search: another is built beside the one that serves, compared, and switched to.
--
--     create_space --> building -- switch_space --> serving -- switch_space, rollback_space --> standby -- drop_space
--
-- All of them are kept in step with the rows, so that there is a way back. A switch renames no table: it changes two rows of
-- the catalog, and statements that began before it end on the space they began with.

CREATE OR REPLACE FUNCTION neural.note_documents()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed text := CASE TG_OP WHEN 'UPDATE'
        THEN 'new_rows n LEFT JOIN old_rows o ON o.id = n.id AND ROW(o.title, o.content, o.metadata) IS NOT DISTINCT FROM
              ROW(n.title, n.content, n.metadata) AND o.collection = n.collection WHERE o.id IS NULL'
        WHEN 'DELETE' THEN 'old_rows n WHERE true' ELSE 'new_rows n WHERE true' END;
BEGIN
    IF TG_RELID <> 'neural.documents'::regclass THEN  -- a definer's trigger is for nobody else's table
        RAISE EXCEPTION 'neural.note_documents is a trigger of neural.documents, and not of %', TG_RELID::regclass
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format(
        'INSERT INTO neural.changes (space_id, keys, rows)
         SELECT s.id, jsonb_agg(jsonb_build_array(c.id)), count(*)
           FROM (SELECT n.id, n.collection FROM %s) c
           JOIN neural.spaces s ON s.source = ''neural.documents'' AND s.attribute = c.collection AND s.reads IS NOT NULL
          GROUP BY s.id', changed);
    IF FOUND THEN
        PERFORM neural.wake();
    END IF;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION neural.note_documents() FROM PUBLIC;

COMMENT ON FUNCTION neural.note_documents() IS
'Trigger of neural.documents while a collection has several spaces: notes the documents of such collections that change';

CREATE OR REPLACE FUNCTION neural.watch_documents()
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    wanted boolean := EXISTS (SELECT FROM neural.spaces WHERE source = 'neural.documents' AND reads IS NOT NULL);
    event record;
BEGIN
    FOR event IN SELECT *, EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'neural.documents'::regclass
                                      AND t.tgname = 'documents_' || lower(e.kind)) AS there
                   FROM (VALUES ('INSERT', 'NEW TABLE AS new_rows'), ('DELETE', 'OLD TABLE AS old_rows'),
                                ('UPDATE', 'OLD TABLE AS old_rows NEW TABLE AS new_rows')) AS e(kind, tables)
    LOOP
        IF wanted AND NOT event.there THEN
            EXECUTE format('CREATE TRIGGER documents_%s AFTER %s ON neural.documents REFERENCING %s
                            FOR EACH STATEMENT EXECUTE FUNCTION neural.note_documents()',
                           lower(event.kind), event.kind, event.tables);
        ELSIF event.there AND NOT wanted THEN
            EXECUTE format('DROP TRIGGER documents_%s ON neural.documents', lower(event.kind));
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION neural.watch_documents() IS
'Gives neural.documents its triggers while a collection has several spaces, and removes them after';

CREATE OR REPLACE FUNCTION neural.create_space(
    source regclass,
    attribute text,
    name text,
    encoder text DEFAULT NULL,
    dimensions integer DEFAULT NULL,
    distance text DEFAULT NULL,
    language text DEFAULT NULL,
    max_tokens integer DEFAULT NULL,
    overlap integer DEFAULT NULL,
    title_boost double precision DEFAULT NULL,
    storage text DEFAULT NULL,
    vector_index jsonb DEFAULT NULL,
    options jsonb DEFAULT NULL,
    rows_per_second double precision DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s neural.spaces;
    of_documents boolean := source = 'neural.documents'::regclass;
    same_vectors boolean;
    created bigint;
BEGIN
    PERFORM neural.lock_search(source, attribute);
    SELECT * INTO s FROM neural.spaces e WHERE e.relation = create_space.source
       AND e.attribute = create_space.attribute AND e.kind = 'dense' AND e.state = 'serving';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no search %', source, attribute
        USING ERRCODE = 'PN404', HINT = 'neural.status lists them.';
    ELSIF s.vector_column IS NOT NULL THEN
        RAISE EXCEPTION 'the vectors of %.% are in column %, which is not ours', source, attribute, s.vector_column
        USING ERRCODE = 'PN400', HINT = 'Add another column, and another search of it.';
    ELSIF EXISTS (SELECT FROM neural.spaces e WHERE e.source = s.source AND e.attribute = s.attribute
                     AND e.kind = 'dense' AND e.name = create_space.name) THEN
        RAISE EXCEPTION '%.% has a space % already', source, attribute, name
        USING ERRCODE = 'PN400', HINT = 'Choose another name.';
    ELSIF name !~ '^[[:alnum:]_]+$' OR (NOT of_documents AND octet_length(s.chunk_table || '_' || name) > 49 /* = tables.NAME_BYTES */) THEN
        RAISE EXCEPTION 'the name of the space is %, expected letters, digits and _, with its table at most 49 bytes', name
        USING ERRCODE = 'PN400', HINT = 'Choose a shorter one.';
    END IF;
    IF rows_per_second <= 0 THEN
        RAISE EXCEPTION 'rows_per_second is %, expected more than 0', rows_per_second USING ERRCODE = 'PN400';
    END IF;
    same_vectors := coalesce(create_space.encoder, s.encoder) = s.encoder AND coalesce(create_space.options, s.options) = s.options
                    AND coalesce(create_space.dimensions, s.dimensions) = s.dimensions;
    IF of_documents AND s.reads IS NULL THEN
        s.reads := neural.searchable_rows(s.id);
        UPDATE neural.spaces e SET reads = s.reads WHERE e.id = s.id;
        PERFORM neural.follow_source(k.chunks::regclass, source), neural.follow_source(k.terms::regclass, source)
           FROM neural.space_tables(s.id) k;
    END IF;
    INSERT INTO neural.spaces (source, relation, fields, attribute, kind, name, state, chunk_table, encoder, revision, options, dimensions,
                               distance, max_tokens, overlap, language, title_boost, language_by, storage, vector_index, reads,
                               watched, sync, rows_per_second, switched_at)
    VALUES (s.source, s.relation, s.fields, s.attribute, 'dense', name, 'building',
            CASE WHEN of_documents THEN '' ELSE (parse_ident(s.source))[2] || '_' || s.attribute || '_' || name END,
            coalesce(create_space.encoder, s.encoder), CASE WHEN same_vectors THEN s.revision ELSE '' END,
            coalesce(create_space.options, CASE WHEN coalesce(create_space.encoder, s.encoder) = s.encoder THEN s.options ELSE '{}' END),
            coalesce(create_space.dimensions, s.dimensions), coalesce(create_space.distance, s.distance),
            coalesce(create_space.max_tokens, s.max_tokens),
            coalesce(create_space.overlap, CASE WHEN create_space.max_tokens IS NULL THEN s.overlap END, create_space.max_tokens / 8 /* = chunk.OVERLAP_SHARE */),
            coalesce(create_space.language, s.language), coalesce(create_space.title_boost, s.title_boost), s.language_by,
            coalesce(create_space.storage, s.storage), coalesce(create_space.vector_index, s.vector_index), s.reads, s.watched,
            s.sync, create_space.rows_per_second, now())
    RETURNING spaces.id INTO created;
    IF of_documents THEN
        UPDATE neural.spaces e SET chunk_table = 'space_' || created WHERE e.id = created;
        PERFORM neural.watch_documents();
    END IF;
    PERFORM neural.make_tables(created);
    PERFORM neural.make_vectors(created, e.kind, e.encoder, e.dimensions, e.revision, e.options) FROM neural.spaces e
      WHERE e.relation = s.relation AND e.attribute = s.attribute AND e.name = s.name AND e.kind <> 'dense';
    PERFORM neural.rebuild_triggers(created);
    PERFORM neural.mark_all(created, source);
    RETURN created;
END
$$;

COMMENT ON FUNCTION neural.create_space IS
'Makes another space of a search beside the one that serves; what is not given is as there. Workers fill it, at most
rows_per_second rows if given; neural.status tells how far they are';

CREATE OR REPLACE FUNCTION neural.space_named(source regclass, attribute text, name text)
RETURNS neural.spaces
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    s neural.spaces;
    names text;
BEGIN
    SELECT * INTO s FROM neural.spaces e WHERE e.relation = space_named.source
       AND e.attribute = space_named.attribute AND e.kind = 'dense' AND e.name = space_named.name;
    IF NOT FOUND THEN
        SELECT string_agg(e.name, ', ' ORDER BY e.id) INTO names FROM neural.spaces e
         WHERE e.relation = space_named.source AND e.attribute = space_named.attribute AND e.kind = 'dense';
        RAISE EXCEPTION '%.% has no space %', source, attribute, name
        USING ERRCODE = 'PN404', HINT = CASE WHEN names IS NULL THEN 'There is no such search; neural.status lists them.'
                                             ELSE 'It has: ' || names || '.' END;
    END IF;
    RETURN s;
END
$$;

COMMENT ON FUNCTION neural.space_named(regclass, text, text) IS 'A space of a search, by its name; an error where there is none';

CREATE OR REPLACE FUNCTION neural.readiness_problem(space bigint)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    s neural.spaces;
    waiting bigint;
    chunks regclass;
    indexable boolean;
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces WHERE id = space;
    waiting := (SELECT count(*) FROM (SELECT FROM neural.pending WHERE space_id = space LIMIT 1000000) p)
             + (SELECT coalesce(sum(rows), 0) FROM neural.changes WHERE space_id = space);
    IF s.state = 'building' AND waiting > 0 THEN
        RETURN format('%s rows of space %s are not encoded yet', waiting, s.name);
    ELSIF EXISTS (SELECT FROM neural.failed WHERE space_id = space) THEN
        RETURN format('%s rows of space %s failed', (SELECT count(*) FROM neural.failed WHERE space_id = space), s.name);
    ELSIF neural.index_definition(space) IS NOT NULL
          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indisvalid AND i.indexrelid =
                  to_regclass(format('%I.%I', (parse_ident(s.source))[1], s.chunk_table || '_embedding_idx'))) THEN
        chunks := (SELECT to_regclass(k.chunks) FROM neural.space_tables(space) k);
        IF has_table_privilege(chunks, 'SELECT') THEN  -- who may not read it may not switch to it
            EXECUTE format('SELECT count(*) >= 2000 /* = indexes.WORTH_INDEXING */ FROM (SELECT FROM %s LIMIT 2000) c', chunks) INTO indexable;
        END IF;
        IF indexable THEN
            RETURN format('space %s has no vector index yet', s.name);
        END IF;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION neural.readiness_problem(bigint) IS 'Why a space should not serve yet; NULL where it can';

CREATE OR REPLACE FUNCTION neural.switch_space(source regclass, attribute text, name text, force boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
    why text;
BEGIN
    PERFORM neural.lock_search(source, attribute);
    s := neural.space_named(source, attribute, name);
    IF s.state = 'serving' THEN
        RETURN;
    END IF;
    why := neural.readiness_problem(s.id);
    IF why IS NOT NULL AND NOT force THEN
        RAISE EXCEPTION '%', why USING ERRCODE = 'PN400', HINT = 'Wait for the workers, run pgneural space index, or force it.';
    END IF;
    UPDATE neural.spaces e SET state = 'standby', switched_at = clock_timestamp()
     WHERE e.relation = s.relation AND e.attribute = s.attribute AND e.state = 'serving';
    UPDATE neural.spaces e SET state = 'serving', switched_at = clock_timestamp()
     WHERE e.relation = s.relation AND e.attribute = s.attribute AND e.name = s.name;  -- with its extra vectors
END
$$;

COMMENT ON FUNCTION neural.switch_space(regclass, text, text, boolean) IS
'Has another space of a search answer from now on; the one that did is on standby, in step with the rows, until it is dropped';

CREATE OR REPLACE FUNCTION neural.rollback_space(source regclass, attribute text)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    before text;
BEGIN
    PERFORM neural.lock_search(source, attribute);
    SELECT e.name INTO before FROM neural.spaces e
     WHERE e.relation = rollback_space.source AND e.attribute = rollback_space.attribute
       AND e.kind = 'dense' AND e.state = 'standby' ORDER BY e.switched_at DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no space of %.% is on standby', source, attribute
        USING ERRCODE = 'PN404', HINT = 'There is nothing to go back to.';
    END IF;
    PERFORM neural.switch_space(source, attribute, before, true);
    RETURN before;
END
$$;

COMMENT ON FUNCTION neural.rollback_space(regclass, text) IS
'Brings the space back that served before the last switch; returns its name';

CREATE OR REPLACE FUNCTION neural.drop_space(source regclass, attribute text, name text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
    schema text;
    own text;
    serving neural.spaces;
    relations oid[];
    renamed record;
BEGIN
    PERFORM neural.lock_search(source, attribute);
    s := neural.space_named(source, attribute, name);
    schema := (parse_ident(s.source))[1];
    own := (parse_ident(s.source))[2] || '_' || s.attribute;
    IF s.state = 'serving' THEN
        RAISE EXCEPTION 'space % of %.% serves', name, source, attribute
        USING ERRCODE = 'PN400', HINT = 'Switch to another first; neural.unwatch drops the whole search.';
    END IF;
    IF source = 'neural.documents'::regclass AND EXISTS (
        SELECT FROM neural.spaces e WHERE e.source = s.source AND e.attribute = s.attribute AND e.id <> s.id AND e.kind = 'dense'
           AND (EXISTS (SELECT FROM neural.changes c WHERE c.space_id = e.id)
                OR EXISTS (SELECT FROM neural.pending p WHERE p.space_id = e.id)
                OR EXISTS (SELECT FROM neural.failed f WHERE f.space_id = e.id)))
    THEN
        RAISE EXCEPTION 'documents of % are not encoded yet in the space that stays', attribute
        USING ERRCODE = 'PN400', HINT = 'Wait for the workers; pgneural status tells.';
    END IF;
    PERFORM neural.drop_vectors_of(s.id);
    PERFORM neural.drop_search_table(format('%I.%I', schema, s.chunk_table || '_terms'), s.relation),
            neural.drop_search_table(format('%I.%I', schema, s.chunk_table), s.relation);
    DELETE FROM neural.spaces e WHERE e.id = s.id;
    IF source = 'neural.documents'::regclass THEN
        UPDATE neural.spaces e SET reads = NULL
         WHERE e.source = s.source AND e.attribute = s.attribute
           AND NOT EXISTS (SELECT FROM neural.spaces o WHERE o.source = s.source AND o.attribute = s.attribute
                              AND o.kind = 'dense' AND o.state <> 'serving');
        DELETE FROM neural.changes c USING neural.spaces e WHERE c.space_id = e.id AND e.source = s.source AND e.reads IS NULL;
        DELETE FROM neural.pending p USING neural.spaces e WHERE p.space_id = e.id AND e.source = s.source AND e.reads IS NULL;
        PERFORM neural.watch_documents();
    ELSIF s.chunk_table = own THEN  -- the space that serves takes the usual names, which models and triggers know
        SELECT * INTO STRICT serving FROM neural.spaces e
         WHERE e.source = s.source AND e.attribute = s.attribute AND e.kind = 'dense' AND e.state = 'serving';
        relations := ARRAY(SELECT to_regclass(t.name)::oid FROM neural.space_tables(serving.id) k, unnest(ARRAY[k.chunks, k.terms]) AS t(name))
                || ARRAY(SELECT to_regclass(t.name)::oid FROM neural.extra_tables(serving.id) AS t(name));
        FOR renamed IN
            SELECT c.oid::regclass AS relation, c.relname AS before, c.relkind AS kind FROM pg_class c
             WHERE (c.oid = ANY (relations) OR c.oid IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = ANY (relations)))
               AND starts_with(c.relname, serving.chunk_table)
        LOOP
            EXECUTE format('ALTER %s %s RENAME TO %I', CASE renamed.kind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END,
                           renamed.relation, own || substr(renamed.before, length(serving.chunk_table) + 1));
        END LOOP;
        FOR renamed IN
            SELECT conrelid::regclass AS relation, conname AS before FROM pg_constraint
             WHERE contype = 'f' AND starts_with(conname, serving.chunk_table) AND conrelid = ANY (relations)
        LOOP
            EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', renamed.relation, renamed.before,
                           own || substr(renamed.before, length(serving.chunk_table) + 1));
        END LOOP;
        UPDATE neural.spaces e SET chunk_table = own || substr(e.chunk_table, length(serving.chunk_table) + 1)
         WHERE e.relation = s.relation AND e.attribute = s.attribute AND e.name = serving.name;
    END IF;
    PERFORM neural.rebuild_triggers(e.id) FROM neural.spaces e
      WHERE e.source = s.source AND e.attribute = s.attribute AND e.kind = 'dense' AND e.state = 'serving';
    DELETE FROM neural.changes c WHERE c.space_id = s.id;  -- of writers that it has waited for
END
$$;

COMMENT ON FUNCTION neural.drop_space(regclass, text, text) IS
'Drops a space that does not serve, with its vectors and words: there is no way back to it';
