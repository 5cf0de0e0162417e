-- Status: what is in the database.
-- Called by `pgneural db status`, and by people at psql.

CREATE OR REPLACE FUNCTION neural.row_count(relation regclass)
RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog
AS $$
DECLARE
    total bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s', relation) INTO total;
    RETURN total;
END
$$;

COMMENT ON FUNCTION neural.row_count(regclass) IS 'The exact number of rows of a table or view';

CREATE OR REPLACE VIEW neural.collections WITH (security_invoker = true) AS
SELECT s.attribute AS name,
       s.encoder,
       s.revision,
       s.dimensions,
       s.distance,
       neural.row_count(to_regclass(format('neural.%I', s.attribute))) AS documents,
       neural.row_count(to_regclass(format('neural.%I', s.chunk_table))) AS chunks,
       EXISTS (
           SELECT FROM pg_catalog.pg_index i
            WHERE i.indexrelid = to_regclass(format('neural.%I', s.chunk_table || '_embedding_idx'))
              AND i.indisvalid
       ) AS indexed,
       s.created_at
  FROM neural.spaces s
 WHERE s.source = 'neural.documents' AND s.kind = 'dense' AND s.state = 'serving'
 ORDER BY s.attribute;

COMMENT ON VIEW neural.collections IS
'Each collection with its encoder, its number of documents and chunks, and whether it has a vector index';
