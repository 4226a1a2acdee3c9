-- requires: plain
-- Without TimescaleDB ticks are partitioned by UTC day like the two big tables; the declaration of
-- 0009 is kept.

ALTER TABLE ticks RENAME TO ticks_pattern;
CREATE TABLE ticks (LIKE ticks_pattern INCLUDING ALL) PARTITION BY RANGE (ts);
DROP TABLE ticks_pattern;

-- Makes the partitions of a UTC day unless they are there; safe to call from several sessions.
-- A partition is made apart and then attached, because that lets readers and writers go on.
CREATE OR REPLACE FUNCTION make_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('stockify.make_day', 0));
    FOREACH parent IN ARRAY ARRAY['market_snapshots', 'option_contracts', 'ticks'] LOOP
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

-- Days that have rows already get the place for ticks that they lack.
SELECT make_day(to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD'))
FROM pg_inherits
WHERE inhparent = 'option_contracts'::regclass;

-- As in 0010, and ticks.
CREATE OR REPLACE FUNCTION drop_days(before date) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    part regclass;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('stockify.make_day', 0));
    FOR part IN
        SELECT inhrelid::regclass
        FROM pg_inherits
        WHERE inhparent IN (
            'market_snapshots'::regclass, 'option_contracts'::regclass, 'ticks'::regclass
        )
        AND to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') < before
        ORDER BY inhrelid::regclass::text
    LOOP
        EXECUTE format('DROP TABLE %s', part);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

-- The server drops nothing by itself here; see 0014.
CREATE FUNCTION set_retention(days integer) RETURNS void LANGUAGE sql AS '';
