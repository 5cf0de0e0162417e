WITH probe AS MATERIALIZED
(SELECT neural.documents.id AS source_id
FROM neural.documents
WHERE neural.documents.collection = %(collection_1)s::VARCHAR AND neural.documents.title = %(title_1)s::VARCHAR
LIMIT 2001),
passing AS MATERIALIZED
(SELECT count(*) AS n
FROM probe),
question AS MATERIALIZED
(SELECT asked.weights AS weights, asked.every AS every, asked.rare AS rare, asked.rest AS rest, asked.bounds AS bounds, asked.without AS without, asked.ideal AS ideal, asked.words AS words, asked.demanded AS demanded, asked.phrases AS phrases, asked.phrased AS phrased
FROM neural.lexical_query(CAST(%(param_4)s::BIGINT AS BIGINT), CAST(%(neural_text)s::VARCHAR AS TEXT), %(lexical_query_1)s::INTEGER) AS asked),
rare_words AS MATERIALIZED
(SELECT neural.documents_notes_terms.source_id AS source_id, CASE WHEN (neural.documents_notes_terms.more_weights IS NULL) THEN -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) ELSE -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) + neural.more_score(neural.documents_notes_terms.more_weights, (SELECT question.weights
FROM question)) END AS bm25
FROM neural.documents_notes_terms
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND (neural.documents_notes_terms.lexemes @@ (SELECT question.rare
FROM question)) AND (SELECT neural.documents.title = %(title_1)s::VARCHAR AS anon_1
FROM neural.documents
WHERE neural.documents_notes_terms.source_id = neural.documents.id) ORDER BY bm25 DESC, neural.documents_notes_terms.source_id
LIMIT 10),
few_words AS MATERIALIZED
(SELECT of_row.source_id AS source_id, of_row.bm25 AS bm25
FROM probe JOIN LATERAL (SELECT neural.documents_notes_terms.source_id AS source_id, CASE WHEN (neural.documents_notes_terms.more_weights IS NULL) THEN -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) ELSE -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) + neural.more_score(neural.documents_notes_terms.more_weights, (SELECT question.weights
FROM question)) END AS bm25
FROM neural.documents_notes_terms
WHERE neural.documents_notes_terms.source_id = probe.source_id AND (neural.documents_notes_terms.lexemes @@ (SELECT question.every
FROM question))
LIMIT ALL OFFSET 0) AS of_row ON true
WHERE (SELECT passing.n
FROM passing) <= %(param_2)s::INTEGER ORDER BY of_row.bm25 DESC, of_row.source_id
LIMIT 10),
more_words AS MATERIALIZED
(SELECT neural.documents_notes_terms.source_id AS source_id, CASE WHEN (neural.documents_notes_terms.more_weights IS NULL) THEN -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) ELSE -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) + neural.more_score(neural.documents_notes_terms.more_weights, (SELECT question.weights
FROM question)) END AS bm25
FROM neural.documents_notes_terms
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND NOT ((SELECT question.rest
FROM question) = %(param_5)s::INTEGER OR coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_2)s::INTEGER) >= (SELECT question.rest
FROM question)) AND (neural.documents_notes_terms.lexemes @@ (SELECT question.without[(coalesce(width_bucket(coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_2)s::INTEGER), question.bounds), %(coalesce_3)s::INTEGER) + %(coalesce_4)s::INTEGER)] AS anon_2
FROM question)) AND (SELECT neural.documents.title = %(title_1)s::VARCHAR AS anon_1
FROM neural.documents
WHERE neural.documents_notes_terms.source_id = neural.documents.id) ORDER BY bm25 DESC, neural.documents_notes_terms.source_id
LIMIT 10),
lexical AS MATERIALIZED
(SELECT words.source_id AS source_id, words.bm25 AS bm25
FROM (SELECT few_words.source_id AS source_id, few_words.bm25 AS bm25
FROM few_words UNION ALL SELECT rare_words.source_id AS source_id, rare_words.bm25 AS bm25
FROM rare_words
WHERE (SELECT question.rest
FROM question) = %(param_5)s::INTEGER OR coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_2)s::INTEGER) >= (SELECT question.rest
FROM question) UNION ALL SELECT more_words.source_id AS source_id, more_words.bm25 AS bm25
FROM more_words) AS words
WHERE words.bm25 > %(bm25_1)s::INTEGER ORDER BY words.bm25 DESC, words.source_id
LIMIT 10)
SELECT row_number() OVER (ORDER BY best.bm25 DESC, best.source_id) + %(param_1)s::INTEGER AS rank, best.source_id, coalesce(chunk.ordinal, %(coalesce_1)s::INTEGER) AS ordinal, best.bm25 AS score, CASE WHEN ((SELECT passing.n
FROM passing) <= %(param_2)s::INTEGER) THEN %(param_3)s::VARCHAR WHEN ((SELECT question.rest
FROM question) = %(param_5)s::INTEGER OR coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_2)s::INTEGER) >= (SELECT question.rest
FROM question)) THEN %(param_6)s::VARCHAR ELSE %(param_7)s::VARCHAR END AS strategy, false AS relaxed, CAST(NULL AS FLOAT) AS semantic, best.bm25 AS lexical
FROM (SELECT lexical.source_id AS source_id, lexical.bm25 AS bm25
FROM lexical ORDER BY lexical.bm25 DESC, lexical.source_id
LIMIT 10) AS best LEFT OUTER JOIN LATERAL (SELECT neural.documents_notes.ordinal AS ordinal
FROM neural.documents_notes JOIN neural.documents_notes_terms ON neural.documents_notes_terms.source_id = neural.documents_notes.source_id
WHERE neural.documents_notes.source_id = best.source_id ORDER BY CASE WHEN (count(*) OVER () > 1) THEN ts_rank(neural.query_words(neural.documents_notes_terms.language, neural.documents_notes.text), (SELECT question.every
FROM question)) END DESC, neural.documents_notes.ordinal
LIMIT 1) AS chunk ON true
