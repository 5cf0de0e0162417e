WITH probe AS MATERIALIZED
(SELECT neural.documents.id AS source_id
FROM neural.documents
WHERE neural.documents.collection = %(collection_1)s::VARCHAR AND neural.documents.title = %(title_1)s::VARCHAR
LIMIT 2001),
passing AS MATERIALIZED
(SELECT count(*) AS n
FROM probe),
query_vector AS MATERIALIZED
(SELECT CAST(CAST(%(neural_semantic)s AS REAL[]) AS VECTOR(3)) AS vector),
query AS MATERIALIZED
(SELECT query_vector.vector AS vector, CAST(l2_normalize(query_vector.vector) AS HALFVEC(3)) AS indexed
FROM query_vector),
settings AS MATERIALIZED
(SELECT concat(set_config(%(set_config_1)s::VARCHAR, %(set_config_2)s::VARCHAR, %(set_config_3)s), set_config(%(set_config_4)s::VARCHAR, %(set_config_5)s::VARCHAR, %(set_config_6)s), set_config(%(set_config_7)s::VARCHAR, %(set_config_8)s::VARCHAR, %(set_config_9)s)) AS applied),
near AS MATERIALIZED
(SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance, 0 AS block
FROM neural.documents_notes
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND (SELECT settings.applied
FROM settings) != %(param_4)s::VARCHAR AND (SELECT neural.documents.title = %(title_1)s::VARCHAR AS anon_1
FROM neural.documents
WHERE neural.documents_notes.source_id = neural.documents.id) ORDER BY CAST(l2_normalize(neural.documents_notes.embedding) AS HALFVEC(3)) <=> (SELECT query.indexed
FROM query)
LIMIT 200),
found AS MATERIALIZED
(SELECT count(*) AS n, count(*) AS first, CAST(NULL AS INTEGER) AS cut
FROM (SELECT near.source_id AS source_id, min(near.block) AS block
FROM near GROUP BY near.source_id) AS rows),
question AS MATERIALIZED
(SELECT asked.weights AS weights, asked.every AS every, asked.rare AS rare, asked.rest AS rest, asked.bounds AS bounds, asked.without AS without, asked.ideal AS ideal, asked.words AS words, asked.demanded AS demanded, asked.phrases AS phrases, asked.phrased AS phrased
FROM neural.lexical_query(CAST(%(param_8)s::BIGINT AS BIGINT), CAST(%(neural_text)s::VARCHAR AS TEXT), %(lexical_query_1)s::INTEGER) AS asked),
exact AS MATERIALIZED
(SELECT of_row.source_id AS source_id, of_row.ordinal AS ordinal, of_row.distance AS distance, 0 AS block
FROM probe JOIN LATERAL (SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance
FROM neural.documents_notes
WHERE neural.documents_notes.source_id = probe.source_id
LIMIT ALL OFFSET 0) AS of_row ON true
WHERE (SELECT passing.n
FROM passing) <= %(param_2)s::INTEGER),
fallback AS MATERIALIZED
(SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance, 1 AS block
FROM (SELECT neural.documents.id AS source_id
FROM neural.documents
WHERE neural.documents.collection = %(collection_1)s::VARCHAR AND neural.documents.title = %(title_1)s::VARCHAR) AS passing_rows JOIN neural.documents_notes ON neural.documents_notes.source_id = passing_rows.source_id
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND (SELECT found.n
FROM found) < %(param_5)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)),
semantic AS MATERIALIZED
(SELECT DISTINCT ON (candidates.source_id) candidates.source_id AS source_id, candidates.ordinal AS ordinal, candidates.distance AS distance, 0 AS block
FROM (SELECT near.source_id AS source_id, near.ordinal AS ordinal, near.distance AS distance, near.block AS block
FROM near UNION ALL SELECT exact.source_id AS source_id, exact.ordinal AS ordinal, exact.distance AS distance, exact.block AS block
FROM exact UNION ALL SELECT fallback.source_id AS source_id, fallback.ordinal AS ordinal, fallback.distance AS distance, fallback.block AS block
FROM fallback) AS candidates ORDER BY candidates.source_id, candidates.distance, candidates.ordinal),
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
LIMIT 200),
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
LIMIT 200),
more_words AS MATERIALIZED
(SELECT neural.documents_notes_terms.source_id AS source_id, CASE WHEN (neural.documents_notes_terms.more_weights IS NULL) THEN -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) ELSE -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) + neural.more_score(neural.documents_notes_terms.more_weights, (SELECT question.weights
FROM question)) END AS bm25
FROM neural.documents_notes_terms
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND NOT ((SELECT question.rest
FROM question) = %(param_10)s::INTEGER OR coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_6)s::INTEGER) >= (SELECT question.rest
FROM question)) AND (neural.documents_notes_terms.lexemes @@ (SELECT question.without[(coalesce(width_bucket(coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_6)s::INTEGER), question.bounds), %(coalesce_7)s::INTEGER) + %(coalesce_8)s::INTEGER)] AS anon_2
FROM question)) AND (SELECT neural.documents.title = %(title_1)s::VARCHAR AS anon_1
FROM neural.documents
WHERE neural.documents_notes_terms.source_id = neural.documents.id) ORDER BY bm25 DESC, neural.documents_notes_terms.source_id
LIMIT 200),
lexical AS MATERIALIZED
(SELECT words.source_id AS source_id, words.bm25 AS bm25
FROM (SELECT few_words.source_id AS source_id, few_words.bm25 AS bm25
FROM few_words UNION ALL SELECT rare_words.source_id AS source_id, rare_words.bm25 AS bm25
FROM rare_words
WHERE (SELECT question.rest
FROM question) = %(param_10)s::INTEGER OR coalesce((SELECT rare_words.bm25
FROM rare_words ORDER BY rare_words.bm25 DESC
LIMIT 1 OFFSET 9), %(coalesce_6)s::INTEGER) >= (SELECT question.rest
FROM question) UNION ALL SELECT more_words.source_id AS source_id, more_words.bm25 AS bm25
FROM more_words) AS words
WHERE words.bm25 > %(bm25_1)s::INTEGER ORDER BY words.bm25 DESC, words.source_id
LIMIT 200),
pool AS MATERIALIZED
(SELECT best_of_all.source_id AS source_id, 0 AS tier, 0 AS place
FROM (SELECT best_semantic.source_id AS source_id
FROM (SELECT semantic.source_id AS source_id
FROM semantic
WHERE semantic.block = %(block_1)s::INTEGER ORDER BY semantic.block, semantic.distance, semantic.source_id
LIMIT 200) AS best_semantic UNION SELECT best_lexical.source_id AS source_id
FROM (SELECT lexical.source_id AS source_id
FROM lexical ORDER BY lexical.bm25 DESC, lexical.source_id
LIMIT 200) AS best_lexical) AS best_of_all),
scored AS MATERIALIZED
(SELECT pool.source_id AS source_id, pool.tier AS tier, pool.place AS place, coalesce(nearest_semantic.ordinal, %(coalesce_5)s::INTEGER) AS ordinal, nearest_semantic.distance AS semantic_distance, matched.bm25 AS bm25
FROM pool LEFT OUTER JOIN LATERAL (SELECT neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance
FROM neural.documents_notes
WHERE neural.documents_notes.source_id = pool.source_id ORDER BY (neural.documents_notes.embedding <=> (SELECT query.vector
FROM query)) + %(param_11)s::INTEGER, neural.documents_notes.ordinal
LIMIT 1) AS nearest_semantic ON true LEFT OUTER JOIN LATERAL (SELECT CASE WHEN (neural.documents_notes_terms.lexemes @@ (SELECT question.every
FROM question)) THEN CASE WHEN (neural.documents_notes_terms.more_weights IS NULL) THEN -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) ELSE -(neural.documents_notes_terms.weights <#> (SELECT question.weights
FROM question)) + neural.more_score(neural.documents_notes_terms.more_weights, (SELECT question.weights
FROM question)) END ELSE %(param_12)s END AS bm25
FROM neural.documents_notes_terms
WHERE neural.documents_notes_terms.source_id = pool.source_id AND neural.documents_notes_terms.length > %(length_1)s::INTEGER
LIMIT ALL OFFSET 0) AS matched ON true),
fused AS MATERIALIZED
(SELECT scored.source_id AS source_id, scored.tier AS tier, scored.place AS place, scored.ordinal AS ordinal, scored.semantic_distance AS semantic_distance, scored.bm25 AS bm25, (%(coalesce_1)s * coalesce((neural.score(scored.semantic_distance, %(score_2)s::VARCHAR) - avg(neural.score(scored.semantic_distance, %(score_2)s::VARCHAR)) FILTER (WHERE scored.tier = %(tier_1)s::INTEGER) OVER ()) / CAST(nullif(greatest(stddev_pop(neural.score(scored.semantic_distance, %(score_2)s::VARCHAR)) FILTER (WHERE scored.tier = %(tier_1)s::INTEGER) OVER (), %(greatest_1)s::INTEGER), %(nullif_1)s::INTEGER) AS NUMERIC), %(coalesce_2)s::INTEGER) + %(coalesce_3)s * coalesce((scored.bm25 / CAST(nullif((SELECT question.ideal
FROM question), %(nullif_2)s::INTEGER) AS NUMERIC) - avg(scored.bm25 / CAST(nullif((SELECT question.ideal
FROM question), %(nullif_2)s::INTEGER) AS NUMERIC)) FILTER (WHERE scored.tier = %(tier_2)s::INTEGER) OVER ()) / CAST(nullif(greatest(stddev_pop(scored.bm25 / CAST(nullif((SELECT question.ideal
FROM question), %(nullif_2)s::INTEGER) AS NUMERIC)) FILTER (WHERE scored.tier = %(tier_2)s::INTEGER) OVER (), %(greatest_2)s), %(nullif_3)s::INTEGER) AS NUMERIC), %(coalesce_4)s::INTEGER)) / CAST(%(param_9)s AS FLOAT) AS score
FROM scored)
SELECT row_number() OVER (ORDER BY best.tier, best.place, best.score DESC, best.source_id) + %(param_1)s::INTEGER AS rank, best.source_id, best.ordinal, best.score, CASE WHEN ((SELECT passing.n
FROM passing) <= %(param_2)s::INTEGER) THEN %(param_3)s::VARCHAR WHEN ((SELECT found.n
FROM found) < %(param_5)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)) THEN %(param_6)s::VARCHAR ELSE %(param_7)s::VARCHAR END AS strategy, false AS relaxed, neural.score(best.semantic_distance, %(score_1)s::VARCHAR) AS semantic, best.bm25 AS lexical
FROM (SELECT fused.source_id AS source_id, fused.tier AS tier, fused.place AS place, fused.ordinal AS ordinal, fused.semantic_distance AS semantic_distance, fused.bm25 AS bm25, fused.score AS score
FROM fused ORDER BY fused.tier, fused.place, fused.score DESC, fused.source_id
LIMIT 10) AS best
