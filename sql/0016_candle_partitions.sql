-- requires: plain
-- Without TimescaleDB the candles that are many are partitioned by UTC day, like what they are made
-- of. The declarations of 0015 are kept: the partitioned tables are made like them. Hours and days
-- are so few that a table of all of them is read faster.

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY[
        'contract_candles_1m', 'contract_candles_5m',
        'underlying_candles_1m', 'underlying_candles_5m'
    ] LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO candles_pattern', parent);
        EXECUTE format(
            'CREATE TABLE %I (LIKE candles_pattern INCLUDING ALL) PARTITION BY RANGE (starts)',
            parent
        );
        DROP TABLE candles_pattern;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION make_candle_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part text;
BEGIN
    FOREACH parent IN ARRAY ARRAY[
        'contract_candles_1m', 'contract_candles_5m',
        'underlying_candles_1m', 'underlying_candles_5m'
    ] LOOP
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
