-- Status: what is in the database.
-- Called by `pgneural db status`, and by people at psql.

CREATE OR REPLACE FUNCTION neural.row_count(relation regclass)
RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
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

CREATE OR REPLACE VIEW neural.status WITH (security_invoker = true) AS
SELECT s.id,
       s.source,
       s.attribute,
       s.name AS space,
       s.state,
       s.encoder,
       s.sync,
       (coalesce(p.rows, 0) + coalesce(c.rows, 0))::bigint AS pending,
       extract(epoch FROM now() - least(p.since, c.since))::double precision AS oldest_seconds,
       coalesce(f.rows, 0) AS failed,
       coalesce(w.rows, 0) AS rows_per_second,
       coalesce(w.encoded, 0) AS encoded_per_second,
       s.problem,
       s.words_version < neural.words_version() AS words_behind,
       s.index_waits
  FROM neural.spaces s
  LEFT JOIN (SELECT space_id, count(*) AS rows, min(changed_at) AS since FROM neural.pending GROUP BY space_id) p
       ON p.space_id = s.id
  LEFT JOIN (SELECT space_id, sum(rows) AS rows, min(changed_at) AS since FROM neural.changes GROUP BY space_id) c
       ON c.space_id = s.id
  LEFT JOIN (SELECT space_id, count(*) AS rows FROM neural.failed GROUP BY space_id) f ON f.space_id = s.id
  LEFT JOIN (
       SELECT space_id, (sum(rows) / 300.0)::double precision AS rows,
              (sum(encoded) / 300.0)::double precision AS encoded
         FROM neural.work WHERE minute > now() - interval '5 minutes' GROUP BY space_id) w ON w.space_id = s.id
 WHERE s.kind = 'dense'
 ORDER BY s.source, s.attribute, s.id;

-- a row is seen by who may see its source
GRANT SELECT ON neural.collections, neural.status TO PUBLIC;

COMMENT ON VIEW neural.status IS
'Each space: how many changed rows are not encoded yet and for how long the oldest has waited, how many were given up
(neural.failed says why), what workers did in the last five minutes, why they leave it alone, if they do, whether
an earlier version made its words, which workers make anew, and whether its vector index is made when the rows that wait are encoded';
