-- requires: timescale
-- With TimescaleDB the two big tables are hypertables with a chunk a UTC day.

SELECT create_hypertable(
    'market_snapshots', by_range('ts', INTERVAL '1 day'), create_default_indexes => false
);
SELECT create_hypertable(
    'option_contracts', by_range('ts', INTERVAL '1 day'), create_default_indexes => false
);

-- Chunks come by themselves; the storage worker asks for the day all the same.
CREATE FUNCTION make_day(day date) RETURNS void LANGUAGE sql AS '';
