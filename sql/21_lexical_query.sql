-- What a query asks of words: its parts, how rare each word is, and its side of BM25 (statement/lexical_leg.py); the
-- side of the rows is in 20_lexical.sql. Rows whose words are not indexed yet are read by their text.

CREATE OR REPLACE FUNCTION neural.lexical_languages(space bigint)
RETURNS TABLE (language text, documents bigint)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
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

CREATE OR REPLACE FUNCTION neural.tsquery_word(lexeme text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN '''' || replace(replace(lexeme, chr(92), chr(92) || chr(92)), '''', '''''') || '''';

COMMENT ON FUNCTION neural.tsquery_word(text) IS 'A lexeme as the text of a tsquery, whatever is in it';

CREATE OR REPLACE FUNCTION neural.query_parts(query text)
RETURNS TABLE (kind text, content text)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH operator AS (
        SELECT found FROM regexp_matches(query, $r$(?:^|\s)(?:(-?)"([^"]*)"|-([^\s"-]\S*))$r$, 'g') AS found
    ), wanted AS (
        SELECT regexp_replace(query, $r$(^|\s)-("[^"]*"|[^\s"-]\S*)$r$, $r$\1$r$, 'g') AS text
    )
    SELECT CASE WHEN found[1] = '' THEN 'demanded' ELSE 'unwanted' END, coalesce(found[2], found[3]) FROM operator
    UNION ALL
    SELECT 'words', regexp_replace(wanted.text, $r$\S+\*(?!\S)$r$, ' ', 'g') FROM wanted
    UNION ALL
    SELECT 'begun', found[1] FROM wanted, regexp_matches(wanted.text, $r$(\S+)\*(?!\S)$r$, 'g') AS found
$$;

COMMENT ON FUNCTION neural.query_parts(text) IS
'What is in a query: words; what is demanded ("a phrase"), unwanted (-word, -"a phrase") and begun (word*)';

CREATE OR REPLACE FUNCTION neural.begun_words(space bigint, language text, beginning text)
RETURNS SETOF text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- the words that begin so, as they stand (=word) or where they are their own stem; of the commonest, the stems
    WITH common AS (
        SELECT c.lexeme
          FROM (VALUES (beginning), ('=' || beginning)) AS b(beginning), neural.term_counts c
         WHERE c.space_id = space AND c.language = begun_words.language
           AND c.lexeme ~>=~ b.beginning AND c.lexeme ~<~ (b.beginning || CASE
                   WHEN neural.knows_unicode() THEN chr(1114111)
                   WHEN pg_encoding_max_length(pg_char_to_encoding(getdatabaseencoding())) = 1 THEN chr(255) ELSE chr(127) END)
         GROUP BY c.lexeme HAVING sum(c.documents) > 0 ORDER BY sum(c.documents) DESC, c.lexeme LIMIT 50
    )
    SELECT c.lexeme FROM common c WHERE NOT starts_with(c.lexeme, '=')
    UNION
    SELECT t.lexeme FROM common c, unnest(to_tsvector(neural.configuration(language), substr(c.lexeme, 2))) t WHERE starts_with(c.lexeme, '=')
$$;

COMMENT ON FUNCTION neural.begun_words(bigint, text, text) IS
'The lexemes of the words of a space that begin so: of the 50 that most rows have';

CREATE OR REPLACE FUNCTION neural.query_terms(space bigint, query text)
RETURNS TABLE (language text, lexeme text, occurrences double precision, documents bigint, idf double precision)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH part AS (
        SELECT p.kind, p.content FROM neural.query_parts(query) p WHERE p.kind IN ('words', 'begun')
    ), spoken AS (
        SELECT l.language, l.documents AS total, p.kind, p.content,
               CASE p.kind WHEN 'begun' THEN string_to_array(neural.words_apart(neural.plain_text(l.language, p.content)), ' ') END AS words
          FROM part p, neural.lexical_languages(space) l
    ), said AS (
        SELECT s.language, s.total, t.lexeme, coalesce(cardinality(t.positions), 1) AS occurrences
          FROM spoken s, unnest(neural.query_words(s.language, s.content)) t WHERE s.kind = 'words'
        UNION ALL  -- client/serv*: client, and what begins with serv
        SELECT s.language, s.total, t.lexeme, 1
          FROM spoken s, unnest(to_tsvector(neural.configuration(s.language), array_to_string(s.words[:cardinality(s.words) - 1], ' '))) t
         WHERE s.kind = 'begun'
    ), begun AS (
        SELECT s.language, s.total, b AS lexeme, 1 AS occurrences
          FROM spoken s, neural.begun_words(space, s.language, s.words[cardinality(s.words)]) b
         WHERE s.kind = 'begun' AND s.words[cardinality(s.words)] <> ''
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
     ORDER BY t.occurrences * ln(1 + (t.total - df.documents + 0.5) / (df.documents + 0.5)) DESC, t.lexeme, t.language
     LIMIT 16000  -- a sparsevec holds no more
$$;

COMMENT ON FUNCTION neural.query_terms(bigint, text) IS
'The lexemes of a query, each with the rows of the space that have it and its inverse document frequency';

CREATE OR REPLACE FUNCTION neural.query_phrases(space bigint, query text, kind text)
RETURNS tsquery[]
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH phrase AS (
        SELECT p.content, row_number() OVER () AS place FROM neural.query_parts(query) p WHERE p.kind = query_phrases.kind
    ), required AS (
        SELECT p.place, string_agg('(' || t.required::text || ')', ' | ') AS required
          FROM phrase p, neural.lexical_languages(space) l,
               LATERAL phraseto_tsquery(neural.configuration(l.language),
                   neural.words_apart(neural.plain_text(l.language, p.content))) AS t(required)
         WHERE numnode(t.required) > 0 GROUP BY p.place
    )
    SELECT array_agg(a.required::tsquery ORDER BY a.place) FROM required a
$$;

COMMENT ON FUNCTION neural.query_phrases(bigint, text, text) IS
'The phrases of a query that are demanded or unwanted, in any of the languages of the space; NULL if there are none';

CREATE OR REPLACE FUNCTION neural.unwanted_words(space bigint, query text)
RETURNS tsquery
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg('(' || u::text || ')', ' | ')::tsquery
      FROM unnest(neural.query_phrases(space, left(query, 8192 /* = options.LONGEST_QUERY */), 'unwanted')) u
$$;

COMMENT ON FUNCTION neural.unwanted_words(bigint, text) IS
'What no row that answers a query may have: -word or -"a phrase"; NULL if nothing';

CREATE OR REPLACE FUNCTION neural.shortened_query(query text)
RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF length(query) > 8192 /* = options.LONGEST_QUERY */ THEN
        RAISE WARNING 'the query has % characters; its words are read from the first 8192', length(query);
    END IF;
    RETURN left(query, 8192 /* = options.LONGEST_QUERY */);
END
$$;

COMMENT ON FUNCTION neural.shortened_query(text) IS
'The part of a query whose words are read: its first 8,192 characters, with a warning if it has more';

CREATE OR REPLACE FUNCTION neural.lexical_query(
    space bigint, query text, candidates integer,
    OUT weights sparsevec, OUT every tsquery, OUT rare tsquery, OUT rest double precision,
    OUT bounds double precision[], OUT without tsquery[], OUT ideal double precision, OUT words tsquery,
    OUT demanded tsquery, OUT phrases tsquery[], OUT phrased tsquery
)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    WITH said AS MATERIALIZED (
        SELECT neural.shortened_query(query) AS text
    ), term AS (
        SELECT t.*, row_number() OVER (ORDER BY t.documents DESC, t.lexeme, t.language) AS place,
               sum(t.documents) OVER (ORDER BY t.documents, t.lexeme DESC, t.language DESC) AS together
          FROM said, neural.query_terms(space, said.text) t
    ), known AS (
        SELECT t.idf * t.occurrences AS weight, t.place, neural.tsquery_word(t.lexeme) AS word,
               t.together <= candidates OR t.place = max(t.place) OVER () AS rare
          FROM term t WHERE t.documents > 0
    ), level AS (  -- without the 0, 1, 2, … commonest words; the last word always stays
        SELECT generate_series(0, least(max(place) - 1, 32)) AS dropped FROM known
        UNION ALL SELECT count(*) FILTER (WHERE NOT k.rare) + 1000 FROM known k
    ), required AS (  -- of rows with =more, some words are not in the index: their score tells
        SELECT l.dropped, (string_agg(k.word, ' | ') || ' | ''=more''')::tsquery AS query
          FROM level l JOIN known k ON CASE WHEN l.dropped < 1000 THEN k.place > l.dropped ELSE k.rare END
         GROUP BY l.dropped
    ), bound AS (
        SELECT a.dropped, a.query, (SELECT coalesce(sum(weight), 0) FROM known WHERE place <= a.dropped) AS bound FROM required a
    ), vector AS (
        SELECT neural.term_key(t.language, t.lexeme) AS key, sum(t.idf * t.occurrences) AS weight FROM term t GROUP BY 1
    ), worded AS (  -- also words that no row is known to have, and beginnings
        SELECT neural.tsquery_word(t.lexeme) AS word FROM term t
        UNION
        SELECT neural.tsquery_word(sign || w.words[cardinality(w.words)]) || ':*'
          FROM said, neural.query_parts(said.text) p, neural.lexical_languages(space) l, unnest(ARRAY['', '=']) AS sign,
               LATERAL (SELECT string_to_array(neural.words_apart(neural.plain_text(l.language, p.content)), ' ')) AS w(words)
         WHERE p.kind = 'begun' AND cardinality(w.words) > 0
    ), phrase AS (
        SELECT neural.query_phrases(space, said.text, 'demanded') AS phrases FROM said
    ), joined AS (
        SELECT string_agg('(' || p::text || ')', ' & ') AS phrases,
               string_agg('(' || regexp_replace(p::text, '<(?:-|[0-9]+)>', '&', 'g') || ')', ' & ') AS words
          FROM phrase, unnest(phrase.phrases) p
    )
    SELECT neural.word_vector('{' || coalesce((SELECT string_agg(key || ':' || weight::real, ',')
                               FROM (SELECT key, weight FROM vector ORDER BY weight DESC LIMIT 16000) v), '')
            || '}/1000000000'),
           (SELECT b.query FROM bound b WHERE b.dropped = 0),
           (SELECT b.query FROM bound b WHERE b.dropped >= 1000),
           coalesce((SELECT sum(weight) FROM known WHERE NOT known.rare), 0),
           (SELECT array_agg(b.bound ORDER BY b.dropped) FROM bound b WHERE b.dropped BETWEEN 1 AND 999),
           (SELECT array_agg(b.query ORDER BY b.dropped) FROM bound b WHERE b.dropped < 1000),
           (SELECT max(total) FROM (SELECT sum(t.idf * t.occurrences) AS total FROM term t GROUP BY t.language) totals),
           (SELECT string_agg(w.word, ' | ')::tsquery FROM worded w),
           (SELECT j.phrases::tsquery FROM joined j),
           (SELECT p.phrases FROM phrase p),
           (SELECT format('%s | ''=parts'' & %s | ''=more''', j.phrases, j.words)::tsquery FROM joined j WHERE j.phrases <> '')
$$;

COMMENT ON FUNCTION neural.lexical_query(bigint, text, integer) IS
'The query''s side of BM25. weights: the idf of each lexeme; ideal: the sum of all idf, also of words that no row has;
every: rows with any of the words; rare: rows with one of the rarest, about as many as candidates; rest: the most that
the other words can add to a score; without[n + 1]: rows with any but the n commonest words, which add at most bounds[n];
words: the same as every, with the words that no row is known to have, for rows whose words are not indexed yet; demanded: rows with
every "phrase", phrases: each of them, phrased: rows that may have them all. Of a query beyond 8,192 characters, those';

CREATE OR REPLACE FUNCTION neural.fresh_score(
    space bigint, title text, content text, language text, query tsquery, weights sparsevec, demanded tsquery, phrases tsquery[],
    OUT bm25 double precision, OUT met boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(neural.word_score(r.weights, fresh_score.weights) + coalesce(neural.more_score(r.more_weights, fresh_score.weights), 0), 1e-9),
           coalesce(CASE WHEN r.parts IS NULL THEN r.lexemes @@ demanded
                         ELSE neural.all_in_parts(r.lexemes, r.parts, phrases) END, false)
      FROM neural.spaces s
     CROSS JOIN LATERAL (
           SELECT coalesce(neural.text_search_configuration(nullif(fresh_score.language, '')), s.language) AS language) spoken
     CROSS JOIN LATERAL neural.row_words(spoken.language, title, content, s.title_boost, coalesce(s.mean_length, 100)) r
     WHERE s.id = space AND CASE WHEN r.parts IS NULL THEN r.lexemes @@ query ELSE neural.in_parts(r.lexemes, r.parts, query) END
$$;

COMMENT ON FUNCTION neural.fresh_score(bigint, text, text, text, tsquery, sparsevec, tsquery, tsquery[]) IS
'BM25 of a row whose words are not indexed yet, by its text, and whether it has the phrases; NULL where it does not match';

CREATE OR REPLACE FUNCTION neural.fresh_has(space bigint, title text, content text, language text, query tsquery)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(CASE WHEN r.parts IS NULL THEN r.lexemes @@ query ELSE neural.in_parts(r.lexemes, r.parts, query) END, false)
      FROM neural.spaces s
     CROSS JOIN LATERAL neural.row_words(
           coalesce(neural.text_search_configuration(nullif(fresh_has.language, '')), s.language), title, content, 1, 100) r
     WHERE s.id = space
$$;

COMMENT ON FUNCTION neural.fresh_has(bigint, text, text, text, tsquery) IS
'Whether a row whose words are not indexed yet has one of some words or phrases';
