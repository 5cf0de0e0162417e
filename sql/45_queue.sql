-- The queue: from what triggers noted (neural.changes) to words and rows to be encoded (neural.pending), and on to workers.
--
--     triggers --> changes -- collect --> words, and pending -- claim --> a worker encodes --> stored, no longer pending
--
-- Writers only add to changes, so none of them ever waits for a worker. Collecting is all SQL: words need no encoder.

CREATE OR REPLACE FUNCTION neural.same_key(alias text, names text[], types text[])
RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s.%I = (k.key ->> %s)::%s', alias, n.name, n.place - 1, n.type), ' AND ' ORDER BY n.place)
      FROM unnest(names, types) WITH ORDINALITY AS n(name, type, place)
$$;

COMMENT ON FUNCTION neural.same_key(text, text[], text[]) IS
'The condition, as text, that a row has the key of k.key, a JSON array';

CREATE OR REPLACE FUNCTION neural.reading_path(source text)
RETURNS text
LANGUAGE sql STABLE STRICT
RETURN concat_ws(', ', 'pg_catalog', quote_ident((parse_ident(source))[1]), nullif(current_setting('search_path'), ''), 'pg_temp');

COMMENT ON FUNCTION neural.reading_path(text) IS
'The search_path by which what is searchable of a table is read: its schema comes after the server''s own, and before the caller''s';

CREATE OR REPLACE FUNCTION neural.index_words(space bigint, keys jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s neural.spaces;
    tables record;
    names text;
    rows_of text;
    there bigint;
    done bigint;
    path text := current_setting('search_path');
BEGIN
    SELECT * INTO STRICT s FROM neural.spaces WHERE id = space;
    SELECT * INTO tables FROM neural.space_tables(space);
    PERFORM set_config('search_path', neural.reading_path(s.source), true);
    names := (SELECT string_agg(quote_ident(n), ', ') FROM pg_catalog.unnest(tables.key_names) n);
    -- looked up row by row, by the key
    rows_of := pg_catalog.format('jsonb_array_elements($1) AS k(key) JOIN LATERAL (SELECT * FROM (%s) r WHERE %s OFFSET 0) r ON true',
                      neural.searchable_rows(space), neural.same_key('r', tables.key_names, tables.key_types));
    IF s.mean_length IS NULL THEN  -- no words yet: that of the first rows
        EXECUTE pg_catalog.format(
            'UPDATE neural.spaces SET mean_length = greatest(sampled.mean, 1)
               FROM (SELECT avg(w.length) AS mean
                       FROM %s, LATERAL neural.row_words($4, r.title::text, r.content::text, $3, 1) w) sampled
              WHERE id = $2 AND mean_length IS NULL AND sampled.mean IS NOT NULL', rows_of)
          USING keys, space, s.title_boost, s.language;
        SELECT * INTO s FROM neural.spaces WHERE id = space;
    END IF;
    LOOP
        EXECUTE pg_catalog.format('DELETE FROM %s t USING jsonb_array_elements($1) AS k(key) WHERE %s',
                       tables.terms, neural.same_key('t', tables.key_names, tables.key_types))
          USING keys;
        EXECUTE pg_catalog.format(
            'WITH spoken AS (
                 SELECT DISTINCT ON (%1$s) %1$s, r.title::text, r.content::text,  -- keys may differ as text and be equal
                        coalesce(neural.text_search_configuration(nullif(r.language::text, '''')), $3) AS spoken
                   FROM %2$s
             ), done AS (
                 INSERT INTO %3$s (%1$s, language, lexemes, length, weights, parts, more_weights)
                 SELECT %1$s, spoken, w.lexemes, w.length, w.weights, w.parts, w.more_weights
                   FROM spoken r CROSS JOIN LATERAL neural.row_words(r.spoken, r.title, r.content, $4, $5) w
                     ON CONFLICT DO NOTHING RETURNING 1
             )
             SELECT (SELECT pg_catalog.count(*) FROM spoken), (SELECT pg_catalog.count(*) FROM done)', names, rows_of, tables.terms)
           INTO there, done USING keys, space, s.language, s.title_boost, coalesce(s.mean_length, 1);
        EXIT WHEN there = done;  -- else somebody else was quicker, with another state of the row perhaps
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$$;

COMMENT ON FUNCTION neural.index_words(bigint, jsonb) IS
'Makes the words of rows anew, given by their keys as a JSON array of arrays; those of rows that are gone are removed';

CREATE OR REPLACE FUNCTION neural.index_words_singly(space bigint, keys jsonb)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    one jsonb;
    later jsonb := '[]';
BEGIN
    FOR one IN SELECT jsonb_array_elements(keys) LOOP
        BEGIN
            PERFORM neural.index_words(space, pg_catalog.jsonb_build_array(one));
        EXCEPTION
            WHEN foreign_key_violation THEN NULL;  -- a document that was deleted meanwhile
            WHEN lock_not_available OR deadlock_detected THEN
                later := later || pg_catalog.jsonb_build_array(one);
                PERFORM set_config('lock_timeout', '10ms', true);  -- what is done holds locks: no more long waiting
            WHEN OTHERS THEN
                IF SQLSTATE ~ '^(08|53|57|58|XX|42501|42P01|42703|42883)' THEN
                    RAISE;  -- of the server, not of the row
                END IF;
                INSERT INTO neural.failed (space_id, key, error, attempts) VALUES (space, one, 'words: ' || SQLERRM, 1)
                    ON CONFLICT (space_id, key) DO UPDATE SET error = excluded.error, failed_at = DEFAULT;
        END;
    END LOOP;
    RETURN later;
END
$$;

COMMENT ON FUNCTION neural.index_words_singly(bigint, jsonb) IS
'index_words row by row: a row that fails goes to neural.failed; returns the keys of rows that others have locked';

CREATE OR REPLACE FUNCTION neural.take_changes(
    space bigint, most integer, own boolean, OUT keys jsonb[], OUT versions bigint[], OUT since timestamptz[], OUT compare boolean
)
LANGUAGE sql
AS $$
    WITH large AS (  -- a statement's keys are noted in one; who takes them cuts them up
        DELETE FROM neural.changes c USING (
            SELECT version FROM neural.changes
             WHERE space_id = space AND rows > 1000 AND (NOT own OR changed_by = pg_current_xact_id_if_assigned()::text::bigint)
             ORDER BY version LIMIT 1 FOR UPDATE SKIP LOCKED) l
         WHERE c.space_id = space AND c.version = l.version
        RETURNING c.keys, c.changed_at, c.changed_by
    )
    INSERT INTO neural.changes (space_id, keys, rows, changed_at, changed_by)
    SELECT space, jsonb_agg(k.key), count(*), l.changed_at, l.changed_by
      FROM large l, jsonb_array_elements(l.keys) WITH ORDINALITY AS k(key, place)
     GROUP BY (k.place - 1) / 1000, l.changed_at, l.changed_by;
    WITH noted AS (
        SELECT c.version, c.rows FROM neural.changes c
         WHERE c.space_id = space AND (NOT own OR c.changed_by = pg_current_xact_id_if_assigned()::text::bigint)
           AND c.rows <= 1000
         ORDER BY c.version LIMIT 512 FOR UPDATE SKIP LOCKED
    ), enough AS (
        SELECT n.version FROM (SELECT version, sum(rows) OVER (ORDER BY version) - rows AS before FROM noted) n
         WHERE n.before < most
    ), taken AS (
        DELETE FROM neural.changes c USING enough e WHERE c.space_id = space AND c.version = e.version
        RETURNING c.version, c.keys, c.changed_at, c.rows
    ), key AS (
        SELECT k.key, max(t.version) AS version, min(t.changed_at) AS since
          FROM taken t, jsonb_array_elements(t.keys) AS k(key) GROUP BY k.key
    )
    SELECT array_agg(key ORDER BY key), array_agg(version ORDER BY key), array_agg(since ORDER BY key),
           EXISTS (SELECT FROM taken WHERE rows = 0) FROM key
$$;

COMMENT ON FUNCTION neural.take_changes(bigint, integer, boolean) IS
'Removes what was noted first, about so many rows: their keys, the versions and times of their changes, and whether all rows
are to be compared, as after TRUNCATE';

CREATE OR REPLACE FUNCTION neural.require_writer(space bigint)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    terms regclass := (SELECT to_regclass(k.terms) FROM neural.space_tables(space) k);
BEGIN
    IF NOT has_table_privilege(terms, 'INSERT') OR NOT has_table_privilege(terms, 'DELETE') THEN
        RAISE EXCEPTION 'role % may not write table %', current_user, terms
        USING ERRCODE = 'insufficient_privilege', HINT = 'Leave encoding to workers, or have neural.grant_application called for the role.';
    END IF;
END
$$;

COMMENT ON FUNCTION neural.require_writer(bigint) IS 'An error where the caller may not write what is kept of a source';

CREATE OR REPLACE FUNCTION neural.collect(space bigint, most integer DEFAULT 1000)
RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '500ms'  -- a row that somebody is deleting waits for the next time
AS $$
DECLARE
    noted record;
    busy jsonb[];
    later jsonb;
    has_chunks boolean := (SELECT chunks IS NOT NULL FROM neural.space_tables(space));
BEGIN
    PERFORM neural.require_writer(space);
    IF NOT EXISTS (SELECT FROM neural.changes WHERE space_id = space)
       OR NOT pg_try_advisory_xact_lock(hashtextextended('pgneural collect ' || space, 0)) THEN
        RETURN 0;  -- somebody else is at it
    END IF;
    SELECT * INTO noted FROM neural.take_changes(space, most, false);
    IF noted.compare THEN
        PERFORM neural.reconcile_space(space);
    END IF;
    IF noted.keys IS NULL THEN
        RETURN noted.compare::integer;
    END IF;
    DELETE FROM neural.failed WHERE space_id = space AND key = ANY (noted.keys);
    IF has_chunks THEN
        WITH collected AS (
            SELECT * FROM unnest(noted.keys, noted.versions, noted.since) AS g(key, version, since)
        ), known AS (
            SELECT p.key FROM neural.pending p WHERE p.space_id = space AND p.key = ANY (noted.keys)
        ), free AS (
            SELECT p.key FROM neural.pending p WHERE p.space_id = space AND p.key = ANY (noted.keys) FOR UPDATE SKIP LOCKED
        ), changed AS (  -- who has claimed it is left alone, and will find the version changed
            UPDATE neural.pending p
               SET version = g.version, attempts = 0, error = NULL,
                   due = CASE WHEN p.claimed_by IS NULL THEN now() ELSE p.due END
              FROM collected g JOIN free USING (key) WHERE p.space_id = space AND p.key = g.key
        ), added AS (
            INSERT INTO neural.pending (space_id, key, version, changed_at)
            SELECT space, g.key, g.version, g.since FROM collected g WHERE g.key NOT IN (TABLE known)
        )
        SELECT pg_catalog.array_agg(key) INTO busy FROM known WHERE key NOT IN (TABLE free);
    END IF;
    later := coalesce(pg_catalog.to_jsonb(busy), '[]');
    noted.keys := (SELECT pg_catalog.array_agg(k) FROM pg_catalog.unnest(noted.keys) k WHERE busy IS NULL OR k <> ALL (busy));
    IF noted.keys IS NOT NULL THEN
        BEGIN
            PERFORM neural.index_words(space, pg_catalog.to_jsonb(noted.keys));
        EXCEPTION WHEN OTHERS THEN
            later := later || neural.index_words_singly(space, pg_catalog.to_jsonb(noted.keys));
        END;
    END IF;
    IF later <> '[]' THEN
        INSERT INTO neural.changes (space_id, keys, rows, changed_at)
        VALUES (space, later, jsonb_array_length(later), (SELECT min(t) FROM pg_catalog.unnest(noted.since) t));
    END IF;
    RETURN greatest(coalesce(pg_catalog.cardinality(noted.keys), 0) - jsonb_array_length(later), 0);
END
$$;

COMMENT ON FUNCTION neural.collect(bigint, integer) IS
'Takes about so many noted rows: indexes their words and makes them pending; returns how many. Of several at once only
one does, the others return 0';

CREATE OR REPLACE FUNCTION neural.forget_changes()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_RELID <> 'neural.spaces'::regclass THEN
        RAISE EXCEPTION 'neural.forget_changes is a trigger of neural.spaces, and not of %', TG_RELID::regclass
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM neural.changes c USING dropped d WHERE c.space_id = d.id;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION neural.forget_changes() FROM PUBLIC;

COMMENT ON FUNCTION neural.forget_changes() IS
'Trigger of neural.spaces: what was noted for a space goes with it. A foreign key would do this, but would also refuse writers
whose snapshot is older than a space';

CREATE OR REPLACE TRIGGER forget_changes AFTER DELETE ON neural.spaces REFERENCING OLD TABLE AS dropped
    FOR EACH STATEMENT EXECUTE FUNCTION neural.forget_changes();

CREATE OR REPLACE FUNCTION neural.unindexed_keys(space bigint, most integer)
RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET row_security = on
AS $$
    WITH own AS (
        SELECT jsonb_array_elements(c.keys) AS key FROM neural.changes c
         WHERE c.space_id = space AND c.changed_by = pg_current_xact_id_if_assigned()::text::bigint
    ), others AS (
        SELECT jsonb_array_elements(c.keys) AS key
          FROM (SELECT keys FROM neural.changes
                 WHERE space_id = space AND changed_by IS DISTINCT FROM pg_current_xact_id_if_assigned()::text::bigint
                 ORDER BY version DESC LIMIT most) c LIMIT most
    )
    TABLE own UNION TABLE others
$$;

COMMENT ON FUNCTION neural.unindexed_keys(bigint, integer) IS
'The keys of rows whose words are not indexed yet: all that the transaction itself has changed, and so many others, the last
first. Searches read the text of these';

CREATE OR REPLACE FUNCTION neural.take(space bigint, most integer, own boolean)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    noted record;
    taken jsonb;
BEGIN
    PERFORM neural.require_writer(space);
    SELECT * INTO noted FROM neural.take_changes(space, most, own);
    IF noted.compare THEN
        PERFORM neural.reconcile_space(space);
    END IF;
    IF noted.keys IS NOT NULL THEN
        DELETE FROM neural.pending WHERE space_id = space AND key = ANY (noted.keys);
        DELETE FROM neural.failed WHERE space_id = space AND key = ANY (noted.keys);
        PERFORM neural.index_words(space, pg_catalog.to_jsonb(noted.keys));
        RETURN pg_catalog.to_jsonb(noted.keys);
    ELSIF noted.compare THEN
        RETURN neural.take(space, most, own);
    ELSIF NOT own THEN
        WITH due AS (
            SELECT key FROM neural.pending
             WHERE space_id = space AND due <= now() ORDER BY due LIMIT most FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM neural.pending p USING due d WHERE p.space_id = space AND p.key = d.key RETURNING p.key
        )
        SELECT pg_catalog.jsonb_agg(key ORDER BY key) INTO taken FROM gone;
    END IF;
    RETURN taken;
END
$$;

COMMENT ON FUNCTION neural.take(bigint, integer, boolean) IS
'For who encodes in the same transaction: takes changed rows off the queue, indexes their words, and returns their keys,
NULL if there are none. With own, only rows that the transaction itself has changed';

CREATE OR REPLACE FUNCTION neural.claim(space bigint, worker text, most integer, lease interval)
RETURNS TABLE (key jsonb, version bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    rate double precision := (SELECT rows_per_second FROM neural.spaces WHERE id = space AND state <> 'serving');
    waiting bigint := (SELECT count(*) FROM (SELECT FROM neural.pending p
                        WHERE p.space_id = space AND p.due <= now() LIMIT 8 * most) first);
BEGIN
    IF waiting = 0 THEN
        RETURN;
    END IF;
    -- an eighth of what waits, so that several workers end together (guided self-scheduling, Polychronopoulos and Kuck 1987)
    most := least(most, waiting, greatest(64, waiting / 8));
    IF rate IS NOT NULL THEN
        most := least(most, ceil(least(rate, 1000000)))::integer;
        UPDATE neural.spaces SET resumes_at = now() + interval '1 second' * (most / rate)
         WHERE id = space AND coalesce(resumes_at, now()) <= now();
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    WITH free AS (
        SELECT p.key FROM neural.pending p
         WHERE p.space_id = space AND p.due <= now() ORDER BY p.due LIMIT most FOR UPDATE SKIP LOCKED
    )
    UPDATE neural.pending p SET claimed_by = worker, due = now() + lease
      FROM free f WHERE p.space_id = space AND p.key = f.key
    RETURNING p.key, p.version;
END
$$;

COMMENT ON FUNCTION neural.claim(bigint, text, integer, interval) IS
'Gives pending rows to a worker for a while, fewer where few wait: no other gets them before the lease ends';

CREATE OR REPLACE FUNCTION neural.release(space bigint, worker text, keys jsonb, wait interval DEFAULT '0')
RETURNS void
LANGUAGE sql
AS $$
    UPDATE neural.pending p SET claimed_by = NULL, due = now() + wait
      FROM jsonb_array_elements(keys) AS k(key)
     WHERE p.space_id = space AND p.key = k.key AND p.claimed_by = worker
$$;

COMMENT ON FUNCTION neural.release(bigint, text, jsonb, interval) IS
'Gives claimed rows back, to be claimed after a while: what changed while it was encoded, or was not begun';

CREATE OR REPLACE FUNCTION neural.fail(space bigint, worker text, failures jsonb, most integer)
RETURNS void
LANGUAGE sql
AS $$
    WITH failure AS (
        SELECT f.key, f.error FROM jsonb_to_recordset(failures) AS f(key jsonb, error text)
    ), given_up AS (
        DELETE FROM neural.pending p USING failure f
         WHERE p.space_id = space AND p.key = f.key AND p.claimed_by = worker AND p.attempts + 1 >= most
        RETURNING p.key, f.error, p.attempts + 1 AS attempts
    ), again AS (
        UPDATE neural.pending p
           SET claimed_by = NULL, attempts = p.attempts + 1, error = f.error, due = now() + interval '1 second' * 4 ^ p.attempts
          FROM failure f
         WHERE p.space_id = space AND p.key = f.key AND p.claimed_by = worker AND p.attempts + 1 < most
    )
    INSERT INTO neural.failed (space_id, key, error, attempts)
    SELECT space, key, error, attempts FROM given_up
        ON CONFLICT (space_id, key) DO UPDATE
       SET error = excluded.error, attempts = excluded.attempts, failed_at = DEFAULT
$$;

COMMENT ON FUNCTION neural.fail(bigint, text, jsonb, integer) IS
'Says of claimed rows why they failed, [{"key": …, "error": …}]: they are tried again after 1, 4, 16, … seconds, and
after so many attempts given up';

CREATE OR REPLACE FUNCTION neural.retry(space bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE sql
AS $$
    WITH failed AS (
        DELETE FROM neural.failed f WHERE space IS NULL OR f.space_id = space RETURNING f.space_id, f.key
    ), noted AS (
        INSERT INTO neural.changes (space_id, keys, rows)
        SELECT space_id, jsonb_agg(key), count(*)
          FROM (SELECT space_id, key, (row_number() OVER () - 1) / 1000 AS slice FROM failed) f GROUP BY space_id, slice
    )
    SELECT count(*) FROM failed, neural.wake()
$$;

COMMENT ON FUNCTION neural.retry(bigint) IS
'Has rows that were given up tried again, of one space or of all; returns how many';
