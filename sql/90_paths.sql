-- Nothing of ours resolves names by a path that others can write to: a function in a schema of theirs may fit its arguments better
-- than the server's own. Functions with a SQL-standard body are bound when they are made; every other one finds its names in the
-- server's schema alone, but for those that read what an owner has written: workers run these as that owner, and what they
-- call of the server's own is qualified wherever another function could fit better.

DO $$
DECLARE
    item record;
    free text[] := '{index_words,index_words_singly,collect,take,reconcile,reconcile_space,reconcile_slice,changed_counts,unreadable}';
BEGIN
    FOR item IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
         WHERE p.pronamespace = 'neural'::regnamespace AND p.prosqlbody IS NULL AND p.proname <> ALL (free)
           AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c(setting) WHERE starts_with(c.setting, 'search_path='))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', item.name);
    END LOOP;
END
$$;
