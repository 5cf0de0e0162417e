-- Late interaction: comparing a query and a text token by token.
-- Called where a search is reranked by the vectors of tokens (statement/late.py).

CREATE OR REPLACE FUNCTION neural.max_sim(document halfvec[], query halfvec[])
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT sum(best)
      FROM (SELECT max(-(stored <#> wanted.token)) AS best
              FROM unnest(query) WITH ORDINALITY AS wanted (token, place), unnest(document) AS stored
             GROUP BY wanted.place) nearest;
END;

COMMENT ON FUNCTION neural.max_sim(halfvec[], halfvec[]) IS
'MaxSim: for each token of the query the inner product with the token of the document that is most like it, summed up';
