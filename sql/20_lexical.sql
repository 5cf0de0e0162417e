-- The lexical leg: BM25 as an inner product of two sparse vectors.
-- A row's side is made when the row is indexed (store/lexical.py), a query's side by every lexical or hybrid
-- search (statement/lexical_leg.py). k1 = 1.5 and b = 0.75, Lucene's formula (Robertson and Zaragoza 2009,
-- "The Probabilistic Relevance Framework"; Kamphuis et al. 2020 for the variants).

CREATE OR REPLACE FUNCTION neural.term_key(language text, lexeme text)
RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN 1 + (('x' || left(md5(language || ' ' || lexeme), 8))::bit(32)::bigint % 999999999)::integer;

COMMENT ON FUNCTION neural.term_key(text, text) IS
'The dimension of a lexeme in the sparse vectors of the lexical leg, the same on every server';

CREATE OR REPLACE FUNCTION neural.word_vector(written text)
RETURNS sparsevec
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN written::sparsevec;

COMMENT ON FUNCTION neural.word_vector(text) IS
'The sparse vector that a text describes; the type is found when the function is made, not by the caller''s search_path';

CREATE OR REPLACE FUNCTION neural.word_score(weights sparsevec, query sparsevec)
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN -(weights <#> query);

COMMENT ON FUNCTION neural.word_score(sparsevec, sparsevec) IS
'The BM25 of a row by its weights and those of a query';

CREATE OR REPLACE FUNCTION neural.text_search_configuration(language text)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT c.cfgname FROM pg_catalog.pg_ts_config c WHERE c.cfgname = known.name LIMIT 1), 'simple')
      FROM (SELECT lower(split_part(translate(language, '_', '-'), '-', 1)) AS code) tag,
           LATERAL (SELECT coalesce(
               ('{"ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "da": "danish", "nl": "dutch",
                  "en": "english", "et": "estonian", "fi": "finnish", "fr": "french", "de": "german", "el": "greek",
                  "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian",
                  "lt": "lithuanian", "ne": "nepali", "no": "norwegian", "nb": "norwegian", "nn": "norwegian",
                  "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "es": "spanish",
                  "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish"}'::jsonb) ->> tag.code,
               lower(language)) AS name) known
$$;

COMMENT ON FUNCTION neural.text_search_configuration(text) IS
'The text search configuration of a language, given as its ISO 639-1 code (en, en-GB) or by its name (english); simple
for one that the server does not know';

CREATE OR REPLACE FUNCTION neural.term_frequencies(lexemes tsvector, title_boost double precision)
RETURNS TABLE (lexeme text, frequency double precision)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT t.lexeme,
           coalesce(cardinality(t.positions), 1)
             + (title_boost - 1) * coalesce(cardinality(array_positions(t.weights, 'A')), 0)
             - coalesce(cardinality(array_positions(t.weights, 'B')), 0)  -- of the next part, repeated for phrases
      FROM unnest(lexemes) t
     WHERE NOT starts_with(t.lexeme, '=');
END;

COMMENT ON FUNCTION neural.term_frequencies(tsvector, double precision) IS
'How often each lexeme occurs, an occurrence in the title counting title_boost times; words as they stand (=word) do not count';

CREATE OR REPLACE FUNCTION neural.bm25_weights(
    lexemes tsvector, language text, title_boost double precision, mean_length double precision
)
RETURNS sparsevec
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    WITH term AS (
        SELECT neural.term_key(language, f.lexeme) AS key, f.frequency, sum(f.frequency) OVER () AS length
          FROM neural.term_frequencies(lexemes, title_boost) f
    ), weighted AS (
        SELECT key, sum(frequency / (frequency + 1.5 * (0.25 + 0.75 * length / mean_length))) AS weight
          FROM term GROUP BY key ORDER BY weight DESC LIMIT 16000  -- a sparsevec holds no more
    )
    SELECT neural.word_vector('{' || coalesce(string_agg(key || ':' || weight::real, ','), '') || '}/1000000000')
      FROM weighted
$$;

COMMENT ON FUNCTION neural.bm25_weights(tsvector, text, double precision, double precision) IS
'The row''s side of BM25: tf / (tf + k1 (1 - b + b length / mean length)) of each of its lexemes';

CREATE OR REPLACE FUNCTION neural.row_weights(
    lexemes tsvector, parts tsvector[], language text, title_boost double precision, mean_length double precision,
    OUT length double precision, OUT weights sparsevec, OUT more_weights sparsevec[]
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
BEGIN
    IF parts IS NULL THEN
        length := coalesce((SELECT sum(f.frequency) FROM neural.term_frequencies(lexemes, title_boost) f), 0);
        weights := neural.bm25_weights(lexemes, language, title_boost, mean_length);
        RETURN;
    END IF;
    WITH placed AS MATERIALIZED (
        SELECT f.lexeme, sum(f.frequency) AS frequency FROM unnest(parts) p, neural.term_frequencies(p, title_boost) f GROUP BY 1
    ), counted AS (
        SELECT p.lexeme, p.frequency FROM placed p WHERE p.frequency > 0
        UNION ALL
        SELECT f.lexeme, 1 FROM neural.term_frequencies(lexemes, 1) f LEFT JOIN placed p USING (lexeme) WHERE p.lexeme IS NULL
    ), term AS (
        SELECT neural.term_key(language, c.lexeme) AS key, c.frequency, sum(c.frequency) OVER () AS all_of_them FROM counted c
    ), weighted AS (
        SELECT t.key, sum(t.frequency / (t.frequency + 1.5 * (0.25 + 0.75 * t.all_of_them / mean_length))) AS weight,
               max(t.all_of_them) AS all_of_them
          FROM term t GROUP BY t.key
    ), numbered AS (
        SELECT w.*, (row_number() OVER (ORDER BY w.key) - 1) / 16000 AS number FROM weighted w
    ), vector AS (
        SELECT n.number, max(n.all_of_them) AS all_of_them,
               neural.word_vector('{' || string_agg(n.key || ':' || n.weight::real, ',') || '}/1000000000') AS weights
          FROM numbered n GROUP BY n.number
    )
    SELECT max(v.all_of_them), (array_agg(v.weights ORDER BY v.number))[1], (array_agg(v.weights ORDER BY v.number))[2:]
      INTO length, weights, more_weights FROM vector v;
    length := coalesce(length, 0);
    weights := coalesce(weights, '{}/1000000000');
    more_weights := nullif(more_weights, '{}');
END
$$;

COMMENT ON FUNCTION neural.row_weights(tsvector, tsvector[], text, double precision, double precision) IS
'How many words a row has, and its side of BM25; of a row with more than 16,000 different words in several vectors';

CREATE OR REPLACE FUNCTION neural.word_parts(language text, words text)
RETURNS tsvector[]
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- 3,500 words of 64 letters, of four bytes each, fit the megabyte that a tsvector holds
    WITH part AS (
        SELECT (w.place - 1) / 3500 AS number, string_agg(w.word, ' ' ORDER BY w.place) AS words
          FROM string_to_table(words, ' ') WITH ORDINALITY AS w(word, place) GROUP BY 1
    ), next AS (
        SELECT p.*, lead(left(p.words, 7000)) OVER (ORDER BY p.number) AS following FROM part p
    )
    SELECT array_agg(to_tsvector(neural.configuration(language), n.words)
                     || setweight(to_tsvector(neural.configuration(language), coalesce(
                            array_to_string((string_to_array(n.following, ' '))[1:100], ' '), '')), 'B')
                     ORDER BY n.number)
      FROM next n
$$;

COMMENT ON FUNCTION neural.word_parts(text, text) IS
'Words with their places in parts of 3,500, since places end at 16,383; each ends with the first 100 of the next, marked B,
so that no phrase lies between';

CREATE OR REPLACE FUNCTION neural.long_words(
    language text, title text, content text, OUT lexemes tsvector, OUT parts tsvector[]
)
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    heading text := neural.plain_text(language, title);
    plain text := neural.plain_text(language, content);
    words text := neural.words_apart(plain);
    further text[];
BEGIN
    parts := neural.word_parts(language, words);
    IF heading <> '' THEN
        plain := heading || chr(10) || plain;
        heading := neural.words_apart(heading);
        words := heading || ' ' || words;
        parts := ARRAY(SELECT setweight(p, 'A') FROM unnest(neural.word_parts(language, heading)) p) || parts;
    END IF;
    further := neural.unplaced_words(plain);
    -- what comes first is what a tsvector has room for; the others stay in parts
    WITH unstemmed AS (
        SELECT DISTINCT u.word
          FROM (SELECT string_agg(w.word, ' ') AS words
                  FROM (SELECT DISTINCT word, hashtext(word) & 255 AS number FROM string_to_table(words, ' ') AS word) w
                 GROUP BY w.number) slice,
               unnest(neural.unstemmed_words(language, to_tsvector(neural.configuration(language), slice.words), slice.words)) AS u(word)
    ), every AS (
        SELECT DISTINCT t.lexeme, 0 AS kind FROM unnest(parts) p, unnest(p) t
        UNION ALL SELECT f, 1 FROM unnest(further) f
        UNION ALL SELECT u.word, 2 FROM unstemmed u
    ), measured AS (
        SELECT e.lexeme, e.kind, sum(octet_length(e.lexeme)) OVER (ORDER BY e.kind, e.lexeme) AS bytes FROM every e
    ), beyond AS (
        SELECT array_to_tsvector(array_agg(m.lexeme)) AS lexemes
          FROM (SELECT m.lexeme, (row_number() OVER (ORDER BY m.lexeme) - 1) / 3500 AS number
                  FROM measured m WHERE m.bytes > 900000 AND m.kind > 0) m
         GROUP BY m.number
    )
    SELECT array_to_tsvector(array_agg(m.lexeme) FILTER (WHERE m.bytes <= 900000)
                             || '=parts'::text || CASE WHEN max(m.bytes) > 900000 THEN ARRAY['=more'] ELSE '{}' END),
           parts || (SELECT coalesce(array_agg(b.lexemes), '{}') FROM beyond b)
      INTO lexemes, parts FROM measured m;
END
$$;

COMMENT ON FUNCTION neural.long_words(text, text, text) IS
'The words of a row that are too many for one tsvector: lexemes without places, and parts with them. =parts says that there are
parts, =more that some lexemes are only there';

CREATE OR REPLACE FUNCTION neural.row_words(
    language text, title text, content text, title_boost double precision, mean_length double precision,
    OUT lexemes tsvector, OUT length double precision, OUT weights sparsevec, OUT parts tsvector[], OUT more_weights sparsevec[]
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    content := coalesce(content, '');
    title := coalesce(title, '');
    IF octet_length(title) + octet_length(content) <= 30000
       OR (octet_length(title) + octet_length(content) <= 200000
           AND cardinality(string_to_array(neural.words_apart(neural.plain_text(language, title || ' ' || content)), ' ')) <= 10000)
    THEN
        lexemes := neural.lexemes(language, title, content);
    ELSE
        SELECT l.lexemes, l.parts INTO lexemes, parts FROM neural.long_words(language, title, content) l;
    END IF;
    SELECT w.length, w.weights, w.more_weights INTO length, weights, more_weights
      FROM neural.row_weights(lexemes, parts, language, title_boost, mean_length) w;
END
$$;

COMMENT ON FUNCTION neural.row_words(text, text, text, double precision, double precision) IS
'All that a terms table has of a row, however long the row is';

CREATE OR REPLACE FUNCTION neural.counted_words(lexemes tsvector, parts tsvector[])
RETURNS SETOF text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT l FROM unnest(tsvector_to_array(lexemes)) l WHERE parts IS NULL
    UNION ALL
    SELECT d.l FROM (SELECT unnest(tsvector_to_array(lexemes)) UNION
                     SELECT l FROM unnest(parts) p, unnest(tsvector_to_array(p)) l) d(l) WHERE parts IS NOT NULL;
END;

COMMENT ON FUNCTION neural.counted_words(tsvector, tsvector[]) IS
'The lexemes of a row, each once: what neural.term_counts counts';

CREATE OR REPLACE FUNCTION neural.in_parts(lexemes tsvector, parts tsvector[], query tsquery)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part tsvector;
BEGIN
    IF lexemes @@ query THEN
        RETURN true;
    END IF;
    FOREACH part IN ARRAY parts LOOP
        IF part @@ query THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

COMMENT ON FUNCTION neural.in_parts(tsvector, tsvector[], tsquery) IS
'Whether a row whose words are in parts has one of some phrases';

CREATE OR REPLACE FUNCTION neural.all_in_parts(lexemes tsvector, parts tsvector[], queries tsquery[])
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one tsquery;
BEGIN
    FOREACH one IN ARRAY queries LOOP
        IF NOT neural.in_parts(lexemes, parts, one) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION neural.all_in_parts(tsvector, tsvector[], tsquery[]) IS
'Whether a row whose words are in parts has each of some phrases, in whichever part';

CREATE OR REPLACE FUNCTION neural.more_score(more_weights sparsevec[], query sparsevec)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT -sum(w <#> query) FROM unnest(more_weights) w);

COMMENT ON FUNCTION neural.more_score(sparsevec[], sparsevec) IS
'What the further vectors of a row with very many words add to its BM25';

CREATE OR REPLACE FUNCTION neural.count_terms()
RETURNS trigger
LANGUAGE plpgsql  -- with the rights of who writes the words: the table is its owner's, with types and triggers of his own
SET search_path = pg_catalog, pg_temp SET row_security = on
AS $$
DECLARE
    space bigint := TG_ARGV[0];
BEGIN
    IF space IS NULL THEN  -- of a table of the user's own: its migrations name no number
        SELECT s.id INTO space
          FROM neural.spaces s
         WHERE s.chunk_table || '_terms' = TG_TABLE_NAME AND s.kind = 'dense' AND (parse_ident(s.source))[1] = TG_TABLE_SCHEMA;
    END IF;
    IF space IS NULL THEN
        RETURN NULL;  -- its space was dropped, or is not to be seen by who writes: the next comparison counts anew
    ELSIF TG_OP = 'TRUNCATE' THEN
        DELETE FROM neural.term_counts WHERE space_id = space;
        DELETE FROM neural.corpus_counts WHERE space_id = space;
        RETURN NULL;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO neural.term_counts (space_id, language, lexeme, documents)
        SELECT space, r.language, t, count(*) FROM counted r, neural.counted_words(r.lexemes, r.parts) t GROUP BY 2, 3;
        INSERT INTO neural.corpus_counts (space_id, language, documents, tokens)
        SELECT space, r.language, count(*), sum(r.length) FROM counted r GROUP BY 2;
    ELSE
        INSERT INTO neural.term_counts (space_id, language, lexeme, documents)
        SELECT space, r.language, t, -count(*) FROM counted r, neural.counted_words(r.lexemes, r.parts) t GROUP BY 2, 3;
        INSERT INTO neural.corpus_counts (space_id, language, documents, tokens)
        SELECT space, r.language, -count(*), -sum(r.length) FROM counted r GROUP BY 2;
    END IF;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION neural.count_terms() FROM PUBLIC;

COMMENT ON FUNCTION neural.count_terms() IS
'Trigger of every terms table: adds what a statement changed to the counts of its space (the trigger''s argument, or
the one whose chunk table it belongs to)';

CREATE OR REPLACE FUNCTION neural.fold_counts(space bigint)
RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('pgneural counts ' || space, 0));
    WITH folded AS (DELETE FROM neural.term_counts WHERE space_id = space RETURNING language, lexeme, documents)
    INSERT INTO neural.term_counts (space_id, language, lexeme, documents)
    SELECT space, language, lexeme, sum(documents) FROM folded GROUP BY 2, 3 HAVING sum(documents) <> 0;
    WITH folded AS (DELETE FROM neural.corpus_counts WHERE space_id = space RETURNING language, documents, tokens)
    INSERT INTO neural.corpus_counts (space_id, language, documents, tokens)
    SELECT space, language, sum(documents), sum(tokens) FROM folded GROUP BY 2 HAVING sum(documents) <> 0;
END
$$;

COMMENT ON FUNCTION neural.fold_counts(bigint) IS
'Sums up the counts of a space, which every change adds rows to; searches give the same before and after';
