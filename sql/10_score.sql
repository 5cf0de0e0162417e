-- Scores: turning a distance (smaller is nearer) into a score (larger is better).
-- Called by every search statement, and by people at psql.

CREATE OR REPLACE FUNCTION neural.score(distance double precision, metric text)
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE metric
    WHEN 'cosine' THEN 1 - distance
    WHEN 'inner_product' THEN -distance  -- pgvector's <#> is the negative inner product
    ELSE 1 / (1 + distance)
END;

COMMENT ON FUNCTION neural.score(double precision, text) IS
'The score (larger is better) of a pgvector distance (smaller is nearer); metric: cosine, inner_product, l2, l1, hamming, jaccard';
