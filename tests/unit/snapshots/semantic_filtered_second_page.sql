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
(SELECT scanned.source_id AS source_id, scanned.ordinal AS ordinal, scanned.distance AS distance, FLOOR((row_number() OVER () - %(param_5)s::INTEGER) / 30) AS block
FROM (SELECT neural.documents_notes.source_id AS source_id, neural.documents_notes.ordinal AS ordinal, neural.documents_notes.embedding <=> (SELECT query.vector
FROM query) AS distance
FROM neural.documents_notes
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND (SELECT settings.applied
FROM settings) != %(param_6)s::VARCHAR AND (SELECT neural.documents.title = %(title_1)s::VARCHAR AS anon_2
FROM neural.documents
WHERE neural.documents_notes.source_id = neural.documents.id) ORDER BY CAST(l2_normalize(neural.documents_notes.embedding) AS HALFVEC(3)) <=> (SELECT query.indexed
FROM query)
LIMIT 60) AS scanned),
found AS MATERIALIZED
(SELECT coalesce(min(filled.n) FILTER (WHERE filled.n < %(param_4)s::INTEGER * (filled.block + %(block_1)s::INTEGER)), max(filled.n)) AS n, min(filled.n) AS first, min(filled.block) FILTER (WHERE filled.n < %(param_4)s::INTEGER * (filled.block + %(block_1)s::INTEGER)) AS cut
FROM (SELECT each.block AS block, sum(each.n) OVER (ORDER BY each.block) AS n
FROM (SELECT anon_1.block AS block, count(rows.block) AS n
FROM generate_series(%(generate_series_1)s::INTEGER, 1) AS anon_1(block) LEFT OUTER JOIN (SELECT near.source_id AS source_id, min(near.block) AS block
FROM near GROUP BY near.source_id) AS rows ON rows.block = anon_1.block GROUP BY anon_1.block) AS each) AS filled),
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
FROM query) AS distance, 2 AS block
FROM (SELECT neural.documents.id AS source_id
FROM neural.documents
WHERE neural.documents.collection = %(collection_1)s::VARCHAR AND neural.documents.title = %(title_1)s::VARCHAR) AS passing_rows JOIN neural.documents_notes ON neural.documents_notes.source_id = passing_rows.source_id
WHERE (SELECT passing.n
FROM passing) > %(param_2)s::INTEGER AND (SELECT found.n
FROM found) < %(param_7)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)),
semantic AS MATERIALIZED
(SELECT DISTINCT ON (candidates.source_id) candidates.source_id AS source_id, candidates.ordinal AS ordinal, candidates.distance AS distance, CASE WHEN ((SELECT found.first
FROM found) >= %(param_10)s::INTEGER OR (SELECT found.first
FROM found) >= (SELECT passing.n
FROM passing)) THEN least(candidates.block, (SELECT found.cut
FROM found) + %(param_11)s::INTEGER) ELSE %(param_12)s::INTEGER END AS block
FROM (SELECT near.source_id AS source_id, near.ordinal AS ordinal, near.distance AS distance, near.block AS block
FROM near UNION ALL SELECT exact.source_id AS source_id, exact.ordinal AS ordinal, exact.distance AS distance, exact.block AS block
FROM exact UNION ALL SELECT fallback.source_id AS source_id, fallback.ordinal AS ordinal, fallback.distance AS distance, fallback.block AS block
FROM fallback) AS candidates ORDER BY candidates.source_id, CASE WHEN ((SELECT found.first
FROM found) >= %(param_10)s::INTEGER OR (SELECT found.first
FROM found) >= (SELECT passing.n
FROM passing)) THEN least(candidates.block, (SELECT found.cut
FROM found) + %(param_11)s::INTEGER) ELSE %(param_12)s::INTEGER END, candidates.distance, candidates.ordinal)
SELECT row_number() OVER (ORDER BY best.block, best.distance, best.source_id) + %(param_1)s::INTEGER AS rank, best.source_id, best.ordinal, neural.score(best.distance, %(score_1)s::VARCHAR) AS score, CASE WHEN ((SELECT passing.n
FROM passing) <= %(param_2)s::INTEGER) THEN %(param_3)s::VARCHAR WHEN ((SELECT found.n
FROM found) < %(param_7)s::INTEGER AND (SELECT found.n
FROM found) < (SELECT passing.n
FROM passing)) THEN %(param_8)s::VARCHAR ELSE %(param_9)s::VARCHAR END AS strategy, false AS relaxed, neural.score(best.distance, %(score_1)s::VARCHAR) AS semantic, CAST(NULL AS FLOAT) AS lexical
FROM (SELECT semantic.source_id AS source_id, semantic.ordinal AS ordinal, semantic.distance AS distance, semantic.block AS block
FROM semantic
WHERE semantic.distance <= %(distance_1)s ORDER BY semantic.block, semantic.distance, semantic.source_id
LIMIT 10 OFFSET 50) AS best
