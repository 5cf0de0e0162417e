-- Nothing of ours resolves names by a path that others can write to: a function in a schema of theirs may fit its arguments better
-- than the server's own. Functions with a SQL-standard body are bound when they are made; every other one finds its names in the
-- server's schema alone, but for those that need pgvector's or read what an owner has written: workers run these as that owner.

DO $$
DECLARE
    made record;
    free text[] := '{bm25_weights,fresh_score,lexical_query,max_sim,make_tables,make_index,watch,create_space,index_words,
        index_words_singly,collect,take,reconcile,reconcile_space,reconcile_slice,changed_counts,unreadable,unwatch}';
BEGIN
    FOR made IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
         WHERE p.pronamespace = 'neural'::regnamespace AND p.prosqlbody IS NULL AND p.proname <> ALL (free)
           AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c(setting) WHERE starts_with(c.setting, 'search_path='))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', made.name);
    END LOOP;
END
$$;
