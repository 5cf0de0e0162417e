WITH many AS MATERIALIZED
(SELECT count(*) AS n
FROM (SELECT neural.documents_notes.source_id AS source_id
FROM neural.documents_notes
WHERE neural.documents_notes.ordinal = %(ordinal_1)s::INTEGER
LIMIT 1 OFFSET 2000) AS beyond),
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
WHERE (SELECT many.n
FROM many) != %(param_2)s::INTEGER AND (SELECT settings.applied
FROM settings) != %(param_4)s::VARCHAR ORDER BY CAST(l2_normalize(neural.documents_notes.embedding) AS HALFVEC(3)) <=> (SELECT query.indexed
FROM query)
LIMIT 30),
found AS MATERIALIZED
(SELECT count(*) AS n, count(*) AS first, CAST(NULL AS INTEGER) AS cut
FROM (SELECT near.source_id AS source_id, min(near.block) AS block
FROM near GROUP BY near.source_id) AS rows),
probe AS MATERIALIZED
(SELECT neural.documents_notes.source_id AS source_id
FROM neural.documents_notes
WHERE neural.documents_notes.ordinal = %(ordinal_2)s::INTEGER
LIMIT 2001),
passing AS MATERIALIZED
(SELECT count(*) AS n
FROM probe),
exact AS MATERIALIZED
(SELECT of_row.source_id AS source_id, of_row.ordinal AS ordinal, of_row.distance AS distance, 0 AS block
FROM probe JOIN LATERAL (SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance
FROM neural.documents_notes
WHERE neural.documents_notes.source_id = probe.source_id
LIMIT ALL OFFSET 0) AS of_row ON true
WHERE (SELECT many.n
FROM many) = %(param_2)s::INTEGER),
fallback AS MATERIALIZED
(SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance, 1 AS block
FROM (SELECT neural.documents.id AS source_id
FROM neural.documents
WHERE neural.documents.collection = %(collection_1)s::VARCHAR) AS passing_rows JOIN neural.documents_notes ON neural.documents_notes.source_id = passing_rows.source_id
WHERE (SELECT many.n
FROM many) != %(param_2)s::INTEGER AND (SELECT found.n
FROM found) < %(param_5)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)),
semantic AS MATERIALIZED
(SELECT DISTINCT ON (candidates.source_id) candidates.source_id AS source_id, candidates.ordinal AS ordinal, candidates.distance AS distance, 0 AS block
FROM (SELECT near.source_id AS source_id, near.ordinal AS ordinal, near.distance AS distance, near.block AS block
FROM near UNION ALL SELECT exact.source_id AS source_id, exact.ordinal AS ordinal, exact.distance AS distance, exact.block AS block
FROM exact UNION ALL SELECT fallback.source_id AS source_id, fallback.ordinal AS ordinal, fallback.distance AS distance, fallback.block AS block
FROM fallback) AS candidates ORDER BY candidates.source_id, candidates.distance, candidates.ordinal)
SELECT row_number() OVER (ORDER BY best.block, best.distance, best.source_id) + %(param_1)s::INTEGER AS rank, best.source_id, best.ordinal, neural.score(best.distance, %(score_1)s::VARCHAR) AS score, CASE WHEN ((SELECT many.n
FROM many) = %(param_2)s::INTEGER) THEN %(param_3)s::VARCHAR WHEN ((SELECT found.n
FROM found) < %(param_5)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)) THEN %(param_6)s::VARCHAR ELSE %(param_7)s::VARCHAR END AS strategy, false AS relaxed, neural.score(best.distance, %(score_1)s::VARCHAR) AS semantic, CAST(NULL AS FLOAT) AS lexical
FROM (SELECT semantic.source_id AS source_id, semantic.ordinal AS ordinal, semantic.distance AS distance, semantic.block AS block
FROM semantic ORDER BY semantic.block, semantic.distance, semantic.source_id
LIMIT 10) AS best
