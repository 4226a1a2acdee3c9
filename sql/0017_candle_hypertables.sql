-- requires: timescale
-- With TimescaleDB candles are hypertables, with chunks that grow with the length of a bucket.

SELECT create_hypertable(name, by_range('starts', width), create_default_indexes => false)
FROM (
    VALUES
    ('contract_candles_1m'::regclass, INTERVAL '1 day'),
    ('contract_candles_5m', INTERVAL '1 day'),
    ('contract_candles_1h', INTERVAL '30 days'),
    ('contract_candles_1d', INTERVAL '360 days'),
    ('underlying_candles_1m', INTERVAL '30 days'),
    ('underlying_candles_5m', INTERVAL '30 days'),
    ('underlying_candles_1h', INTERVAL '360 days'),
    ('underlying_candles_1d', INTERVAL '360 days')
) AS tables (name, width);
