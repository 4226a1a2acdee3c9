-- requires: plain
-- Without TimescaleDB the two big tables are partitioned by UTC day. The declarations of 0003 are
-- kept: the partitioned tables are made like them.

ALTER TABLE market_snapshots RENAME TO market_snapshots_pattern;
ALTER TABLE option_contracts RENAME TO option_contracts_pattern;
CREATE TABLE market_snapshots (LIKE market_snapshots_pattern INCLUDING ALL) PARTITION BY RANGE (ts);
CREATE TABLE option_contracts (LIKE option_contracts_pattern INCLUDING ALL) PARTITION BY RANGE (ts);
DROP TABLE market_snapshots_pattern, option_contracts_pattern;

-- Makes the partitions of a UTC day unless they are there; safe to call from several sessions.
-- A partition is made apart and then attached, because that lets readers and writers go on.
CREATE FUNCTION make_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('stockify.make_day', 0));
    FOREACH parent IN ARRAY ARRAY['market_snapshots', 'option_contracts'] LOOP
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, part, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00'
            );
        END IF;
    END LOOP;
END
$$;
