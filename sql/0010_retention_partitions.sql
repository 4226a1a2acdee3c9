-- requires: plain
-- Drops the partitions of snapshots and contracts of UTC days before one; gives how many. It waits
-- for readers for two seconds, then it fails and is called again later.

CREATE FUNCTION drop_days(before date) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '2s'
AS $$
DECLARE
    part text;
    dropped integer := 0;
BEGIN
    FOR part IN
        SELECT relid::text
        FROM (
            SELECT inhrelid::regclass AS relid
            FROM pg_inherits
            WHERE inhparent IN ('market_snapshots'::regclass, 'option_contracts'::regclass)
        ) AS parts
        WHERE to_date(right(relid::text, 8), 'YYYYMMDD') < before
        ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %s', part);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
