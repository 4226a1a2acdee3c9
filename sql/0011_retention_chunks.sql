-- requires: timescale
-- Drops the chunks of snapshots and contracts of UTC days before one; gives how many. It waits for
-- readers for two seconds, then it fails and is called again later.

CREATE FUNCTION drop_days(before date) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '2s'
AS $$
DECLARE
    midnight timestamptz := (before::text || ' 00:00:00+00')::timestamptz;
    dropped integer;
BEGIN
    SELECT
        (SELECT count(*) FROM drop_chunks('market_snapshots', older_than => midnight))
        + (SELECT count(*) FROM drop_chunks('option_contracts', older_than => midnight))
    INTO dropped;
    RETURN dropped;
END
$$;
