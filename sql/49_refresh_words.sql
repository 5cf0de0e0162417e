-- Making the words of a space anew, where an earlier version of neural.lexemes made them.
-- Called by workers, Collection.index and Searchable.sync, slice by slice, while searches go on: words that both versions
-- make alike, as nearly all are, are found all the while, the others as soon as their row has had its turn.

CREATE OR REPLACE FUNCTION neural.refresh_words(space bigint, most integer DEFAULT 500)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET lock_timeout = '500ms'
AS $$
DECLARE
    s neural.spaces;
    tables record;
    names text;
    beyond text;
    slice jsonb;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pgneural words ' || space, 0)) THEN
        RETURN NULL;  -- somebody else is at it
    END IF;
    SELECT * INTO s FROM neural.spaces WHERE id = space;
    IF NOT FOUND OR s.words_version >= neural.words_version() THEN
        RETURN NULL;
    END IF;
    SELECT * INTO tables FROM neural.space_tables(space);
    IF neural.searchable_rows(space) IS NOT NULL AND tables.key_names IS NOT NULL THEN
        names := (SELECT string_agg(quote_ident(n), ', ' ORDER BY place) FROM unnest(tables.key_names) WITH ORDINALITY AS k(n, place));
        IF (s.words_refresh ->> 'version')::integer = neural.words_version() THEN  -- else another version was on its way
            beyond := (SELECT string_agg(format('($1 ->> %s)::%s', place - 1, type), ', ' ORDER BY place)
                         FROM unnest(tables.key_types) WITH ORDINALITY AS k(type, place));
            beyond := format('WHERE (%s) > (%s)', names, beyond);
        END IF;
        EXECUTE format('SELECT jsonb_agg(jsonb_build_array(%1$s)) FROM (SELECT %1$s FROM %2$s %3$s ORDER BY %1$s LIMIT $2) t',
                       names, tables.terms, beyond)
          INTO slice USING s.words_refresh -> 'after', most;
    END IF;
    IF slice IS NULL THEN
        UPDATE neural.spaces SET words_version = neural.words_version(), words_refresh = NULL WHERE id = space;
        RETURN NULL;
    END IF;
    PERFORM neural.index_words(space, slice);
    UPDATE neural.spaces SET words_refresh = jsonb_build_object('version', neural.words_version(), 'after', slice -> -1)
     WHERE id = space;
    RETURN jsonb_array_length(slice);
END
$$;

COMMENT ON FUNCTION neural.refresh_words(bigint, integer) IS
'Makes the words of the next rows of a space anew, where neural.words_version is later than theirs; returns how many rows, NULL
where there is nothing more to do here';
