-- requires: timescale
-- With TimescaleDB ticks are a hypertable with a chunk a UTC day, like the two big tables.

SELECT create_hypertable(
    'ticks', by_range('ts', INTERVAL '1 day'), create_default_indexes => false
);

-- As in 0011, and ticks.
CREATE OR REPLACE FUNCTION drop_days(before date) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    midnight timestamptz := (before::text || ' 00:00:00+00')::timestamptz;
    dropped integer;
BEGIN
    SELECT
        (SELECT count(*) FROM drop_chunks('market_snapshots', older_than => midnight))
        + (SELECT count(*) FROM drop_chunks('option_contracts', older_than => midnight))
        + (SELECT count(*) FROM drop_chunks('ticks', older_than => midnight))
    INTO dropped;
    RETURN dropped;
END
$$;

-- The server drops nothing by itself in the Apache edition; 0014 says it anew where it can.
CREATE FUNCTION set_retention(days integer) RETURNS void LANGUAGE sql AS '';
