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

CREATE OR REPLACE FUNCTION neural.text_search_configuration(language text)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    SELECT coalesce(
        (SELECT c.cfgname FROM pg_catalog.pg_ts_config c WHERE c.cfgname = known.name LIMIT 1), 'simple')
      FROM (SELECT lower(split_part(translate(language, '_', '-'), '-', 1)) AS code) asked,
           LATERAL (SELECT coalesce(
               ('{"ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "da": "danish", "nl": "dutch",
                  "en": "english", "et": "estonian", "fi": "finnish", "fr": "french", "de": "german", "el": "greek",
                  "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian",
                  "lt": "lithuanian", "ne": "nepali", "no": "norwegian", "nb": "norwegian", "nn": "norwegian",
                  "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "es": "spanish",
                  "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish"}'::jsonb) ->> asked.code,
               lower(language)) AS name) known
$$;

COMMENT ON FUNCTION neural.text_search_configuration(text) IS
'The text search configuration of a language, given as its ISO 639-1 code (en, en-GB) or by its name (english); simple
for one that the server does not know';

CREATE OR REPLACE FUNCTION neural.lexemes(language text, title text, content text)
RETURNS tsvector
LANGUAGE sql STABLE PARALLEL SAFE
RETURN setweight(to_tsvector(language::regconfig, coalesce(title, '')), 'A')
    || to_tsvector(language::regconfig, CASE
           WHEN octet_length(content) > 500000  -- a tsvector holds 1 MB, and a lexeme takes up to twice its text
           THEN left(content, (500000.0 * char_length(content) / octet_length(content))::integer)
           ELSE coalesce(content, '') END);

COMMENT ON FUNCTION neural.lexemes(text, text, text) IS
'The words of a row, those of its title marked A; of a content beyond 500 kB, the first 500 kB';

CREATE OR REPLACE FUNCTION neural.term_frequencies(lexemes tsvector, title_boost double precision)
RETURNS TABLE (lexeme text, frequency double precision)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT t.lexeme,
           coalesce(cardinality(t.positions), 1)
             + (title_boost - 1) * coalesce(cardinality(array_positions(t.weights, 'A')), 0)
      FROM unnest(lexemes) t
$$;

COMMENT ON FUNCTION neural.term_frequencies(tsvector, double precision) IS
'How often each lexeme occurs, an occurrence in the title counting title_boost times';

CREATE OR REPLACE FUNCTION neural.bm25_weights(
    lexemes tsvector, language text, title_boost double precision, mean_length double precision
)
RETURNS sparsevec
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    WITH term AS (
        SELECT neural.term_key(language, f.lexeme) AS key, f.frequency, sum(f.frequency) OVER () AS length
          FROM neural.term_frequencies(lexemes, title_boost) f
    ), weighted AS (
        SELECT key, sum(frequency / (frequency + 1.5 * (0.25 + 0.75 * length / mean_length))) AS weight
          FROM term GROUP BY key ORDER BY weight DESC LIMIT 16000  -- a sparsevec holds no more
    )
    SELECT ('{' || coalesce(string_agg(key || ':' || weight::real, ','), '') || '}/1000000000')::sparsevec
      FROM weighted
$$;

COMMENT ON FUNCTION neural.bm25_weights(tsvector, text, double precision, double precision) IS
'The row''s side of BM25: tf / (tf + k1 (1 - b + b length / mean length)) of each of its lexemes';

CREATE OR REPLACE FUNCTION neural.lexical_languages(space bigint)
RETURNS TABLE (language text, documents bigint)
LANGUAGE sql STABLE STRICT
AS $$
    WITH counted AS (
        SELECT c.language, sum(c.documents)::bigint AS documents FROM neural.corpus_counts c
         WHERE c.space_id = space GROUP BY c.language HAVING sum(c.documents) > 0
    )
    TABLE counted
    UNION ALL  -- its first row may just have been written
    SELECT s.language, 0 FROM neural.spaces s
     WHERE s.id = space AND s.reads IS NOT NULL AND s.language NOT IN (SELECT counted.language FROM counted)
$$;

COMMENT ON FUNCTION neural.lexical_languages(bigint) IS
'The text search configurations of the rows of a space, each with its number of rows';

CREATE OR REPLACE FUNCTION neural.query_terms(space bigint, query text)
RETURNS TABLE (language text, lexeme text, occurrences double precision, documents bigint, idf double precision)
LANGUAGE sql STABLE STRICT
AS $$
    WITH wanted AS (  -- without -word and -"a phrase"
        SELECT regexp_replace(query, '(^|\s)-("[^"]*"|\w\S*)', '\1', 'g') AS text
    ), said AS (
        SELECT l.language, l.documents AS total, t.lexeme, coalesce(cardinality(t.positions), 1) AS occurrences
          FROM wanted, neural.lexical_languages(space) l,
               unnest(to_tsvector(l.language::regconfig, regexp_replace(wanted.text, '\w+\*(?!\S)', ' ', 'g'))) t
    ), begun AS (  -- word*: the lexemes that begin like it, the commonest first
        SELECT l.language, l.documents AS total, t.lexeme, 1 AS occurrences
          FROM wanted, neural.lexical_languages(space) l,
               regexp_matches(wanted.text, '(\w+)\*(?!\S)', 'g') AS prefix,
               LATERAL (SELECT c.lexeme FROM neural.term_counts c
                         WHERE c.space_id = space AND c.language = l.language
                           AND starts_with(c.lexeme, lower(prefix[1]))
                         GROUP BY c.lexeme ORDER BY sum(c.documents) DESC, c.lexeme LIMIT 50) t
    ), term AS (
        SELECT t.language, t.total, t.lexeme, sum(t.occurrences)::double precision AS occurrences
          FROM (TABLE said UNION ALL TABLE begun) t GROUP BY t.language, t.total, t.lexeme
    )
    SELECT t.language, t.lexeme, t.occurrences, df.documents,
           ln(1 + (t.total - df.documents + 0.5) / (df.documents + 0.5))
      FROM term t,
           LATERAL (SELECT least(greatest(coalesce(sum(c.documents), 0), 0), t.total)::bigint AS documents
                      FROM neural.term_counts c
                     WHERE c.space_id = space AND c.language = t.language AND c.lexeme = t.lexeme) df
$$;

COMMENT ON FUNCTION neural.query_terms(bigint, text) IS
'The lexemes of a query, each with the rows of the space that have it and its inverse document frequency';

CREATE OR REPLACE FUNCTION neural.query_conditions(language text, query text)
RETURNS tsquery
LANGUAGE sql STABLE STRICT
AS $$
    SELECT string_agg(CASE WHEN found[2] IS NOT DISTINCT FROM '' THEN '(' || asked::text || ')' ELSE '!(' || asked::text || ')' END,
                      ' & ')::tsquery
      FROM regexp_matches(query, '(^|\s)(?:(-?)"([^"]*)"|-(\w\S*))', 'g') AS found,
           phraseto_tsquery(language::regconfig, coalesce(found[3], found[4])) AS asked
     WHERE numnode(asked) > 0
$$;

COMMENT ON FUNCTION neural.query_conditions(text, text) IS
'What a query demands besides its words: "a phrase" must occur, -word and -"a phrase" must not; NULL if nothing';

CREATE OR REPLACE FUNCTION neural.lexical_query(
    space bigint, query text, candidates integer,
    OUT weights sparsevec, OUT every tsquery, OUT rare tsquery, OUT rest double precision,
    OUT bounds double precision[], OUT without tsquery[], OUT ideal double precision, OUT words tsquery
)
LANGUAGE sql STABLE STRICT
AS $$
    WITH term AS (
        SELECT t.*, row_number() OVER (ORDER BY t.documents DESC, t.lexeme, t.language) AS place,
               sum(t.documents) OVER (ORDER BY t.documents, t.lexeme DESC, t.language DESC) AS together
          FROM neural.query_terms(space, query) t
    ), known AS (
        SELECT t.language, neural.term_key(t.language, t.lexeme) AS key, t.idf * t.occurrences AS weight, t.place,
               t.together <= candidates OR t.place = max(t.place) OVER () AS rare,
               quote_literal(t.lexeme)::tsquery::text AS word
          FROM term t WHERE t.documents > 0
    ), level AS (  -- without the 0, 1, 2, … commonest words; the last word always stays
        SELECT generate_series(0, least(max(place) - 1, 32)) AS dropped FROM known
        UNION ALL SELECT count(*) FILTER (WHERE NOT k.rare) + 1000 FROM known k
    ), spoken AS (
        SELECT l.dropped, '(' || concat_ws(' & ', '(' || string_agg(k.word, ' | ') || ')',
                                           '(' || neural.query_conditions(k.language, query)::text || ')') || ')' AS query
          FROM level l JOIN known k ON CASE WHEN l.dropped < 1000 THEN k.place > l.dropped ELSE k.rare END
         GROUP BY l.dropped, k.language
    ), asked AS (
        SELECT dropped, string_agg(spoken.query, ' | ')::tsquery AS query,
               (SELECT coalesce(sum(weight), 0) FROM known WHERE place <= dropped) AS bound
          FROM spoken GROUP BY dropped
    ), vector AS (
        SELECT neural.term_key(t.language, t.lexeme) AS key, sum(t.idf * t.occurrences) AS weight FROM term t GROUP BY 1
    ), worded AS (  -- also words that no row is known to have
        SELECT t.language, string_agg(quote_literal(t.lexeme)::tsquery::text, ' | ') AS words FROM term t GROUP BY 1
    )
    SELECT ('{' || coalesce((SELECT string_agg(key || ':' || weight::real, ',') FROM vector), '')
            || '}/1000000000')::sparsevec,
           (SELECT a.query FROM asked a WHERE a.dropped = 0),
           (SELECT a.query FROM asked a WHERE a.dropped >= 1000),
           coalesce((SELECT sum(weight) FROM known WHERE NOT known.rare), 0),
           (SELECT array_agg(a.bound ORDER BY a.dropped) FROM asked a WHERE a.dropped BETWEEN 1 AND 999),
           (SELECT array_agg(a.query ORDER BY a.dropped) FROM asked a WHERE a.dropped < 1000),
           (SELECT max(total) FROM (SELECT sum(t.idf * t.occurrences) AS total FROM term t GROUP BY t.language) totals),
           (SELECT string_agg('(' || concat_ws(' & ', '(' || w.words || ')',
                                               '(' || neural.query_conditions(w.language, query)::text || ')') || ')', ' | ')::tsquery
              FROM worded w)
$$;

COMMENT ON FUNCTION neural.lexical_query(bigint, text, integer) IS
'The query''s side of BM25. weights: the idf of each lexeme; ideal: the sum of all idf, also of words that no row has;
every: rows with any of the words; rare: rows with one of the rarest, about as many as candidates; rest: the most that
the other words can add to a score; without[n + 1]: rows with any but the n commonest words, which add at most bounds[n];
words: the same as every, with the words that no row is known to have, for rows whose words are not indexed yet';

CREATE OR REPLACE FUNCTION neural.fresh_score(
    space bigint, title text, content text, language text, query tsquery, weights sparsevec
)
RETURNS double precision
LANGUAGE sql STABLE
AS $$
    SELECT -(neural.bm25_weights(l.lexemes, spoken.language, s.title_boost, coalesce(s.mean_length, 100)) <#> weights)
      FROM neural.spaces s
     CROSS JOIN LATERAL (
           SELECT coalesce(neural.text_search_configuration(nullif(fresh_score.language, '')), s.language) AS language) spoken
     CROSS JOIN LATERAL (SELECT neural.lexemes(spoken.language, title, content) AS lexemes OFFSET 0) l
     WHERE s.id = space AND l.lexemes @@ query
$$;

COMMENT ON FUNCTION neural.fresh_score(bigint, text, text, text, tsquery, sparsevec) IS
'BM25 of a row whose words are not indexed yet, by its text; NULL where it does not match';

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
        SELECT space, r.language, t.lexeme, count(*) FROM counted r, unnest(r.lexemes) t GROUP BY 2, 3;
        INSERT INTO neural.corpus_counts (space_id, language, documents, tokens)
        SELECT space, r.language, count(*), sum(r.length) FROM counted r GROUP BY 2;
    ELSE
        INSERT INTO neural.term_counts (space_id, language, lexeme, documents)
        SELECT space, r.language, t.lexeme, -count(*) FROM counted r, unnest(r.lexemes) t GROUP BY 2, 3;
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
