-- requires: community
-- not transactional
-- Candles as continuous aggregates. Where a snapshot was calculated more than once the highest
-- revision speaks at open and close; high and low are over all.
-- Hours have an origin of their own, which an aggregate upon an aggregate may not, so they are made
-- from the rows. They and days are bound to a time zone, because only so the server looks for whole
-- buckets in the window of a refresh with regard to where they begin.
-- Rows that come more than four days late are beyond the policies: CALL refresh_candles.

CREATE MATERIALIZED VIEW IF NOT EXISTS contract_candles_1m
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '1 minute', leg.ts) AS starts,
    max(leg.ts) AS closed_at,
    last(leg.volume, revision_order(leg.ts, leg.rev)) FILTER (WHERE leg.volume IS NOT NULL)
        AS volume_total,
    count(DISTINCT leg.ts) AS n,
    leg.instrument_id,
    first(leg.last, revision_order(leg.ts, -leg.rev)) FILTER (WHERE leg.last IS NOT NULL) AS open,
    max(leg.last) AS high,
    min(leg.last) AS low,
    last(leg.last, revision_order(leg.ts, leg.rev)) FILTER (WHERE leg.last IS NOT NULL) AS close,
    last(leg.open_interest, revision_order(leg.ts, leg.rev)) AS open_interest,
    last(leg.iv, revision_order(leg.ts, leg.rev)) AS iv,
    last(leg.bid, revision_order(leg.ts, leg.rev)) AS bid,
    last(leg.ask, revision_order(leg.ts, leg.rev)) AS ask
FROM option_contracts AS leg
GROUP BY 1, leg.instrument_id
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS contract_candles_5m
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '5 minutes', candle.starts) AS starts,
    max(candle.closed_at) AS closed_at,
    last(candle.volume_total, candle.starts) FILTER (WHERE candle.volume_total IS NOT NULL)
        AS volume_total,
    sum(candle.n)::bigint AS n,
    candle.instrument_id,
    first(candle.open, candle.starts) FILTER (WHERE candle.open IS NOT NULL) AS open,
    max(candle.high) AS high,
    min(candle.low) AS low,
    last(candle.close, candle.starts) FILTER (WHERE candle.close IS NOT NULL) AS close,
    last(candle.open_interest, candle.starts) AS open_interest,
    last(candle.iv, candle.starts) AS iv,
    last(candle.bid, candle.starts) AS bid,
    last(candle.ask, candle.starts) AS ask
FROM contract_candles_1m AS candle
GROUP BY 1, candle.instrument_id
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS contract_candles_1h
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(
        INTERVAL '1 hour', leg.ts, 'Asia/Kolkata', TIMESTAMPTZ '2000-01-03 03:45:00Z'
    ) AS starts,
    max(leg.ts) AS closed_at,
    last(leg.volume, revision_order(leg.ts, leg.rev)) FILTER (WHERE leg.volume IS NOT NULL)
        AS volume_total,
    count(DISTINCT leg.ts) AS n,
    leg.instrument_id,
    first(leg.last, revision_order(leg.ts, -leg.rev)) FILTER (WHERE leg.last IS NOT NULL) AS open,
    max(leg.last) AS high,
    min(leg.last) AS low,
    last(leg.last, revision_order(leg.ts, leg.rev)) FILTER (WHERE leg.last IS NOT NULL) AS close,
    last(leg.open_interest, revision_order(leg.ts, leg.rev)) AS open_interest,
    last(leg.iv, revision_order(leg.ts, leg.rev)) AS iv,
    last(leg.bid, revision_order(leg.ts, leg.rev)) AS bid,
    last(leg.ask, revision_order(leg.ts, leg.rev)) AS ask
FROM option_contracts AS leg
GROUP BY 1, leg.instrument_id
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS contract_candles_1d
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '1 day', candle.starts, 'Asia/Kolkata') AS starts,
    max(candle.closed_at) AS closed_at,
    last(candle.volume_total, candle.starts) FILTER (WHERE candle.volume_total IS NOT NULL)
        AS volume_total,
    sum(candle.n)::bigint AS n,
    candle.instrument_id,
    first(candle.open, candle.starts) FILTER (WHERE candle.open IS NOT NULL) AS open,
    max(candle.high) AS high,
    min(candle.low) AS low,
    last(candle.close, candle.starts) FILTER (WHERE candle.close IS NOT NULL) AS close,
    last(candle.open_interest, candle.starts) AS open_interest,
    last(candle.iv, candle.starts) AS iv,
    last(candle.bid, candle.starts) AS bid,
    last(candle.ask, candle.starts) AS ask
FROM contract_candles_5m AS candle
GROUP BY 1, candle.instrument_id
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS underlying_candles_1m
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '1 minute', snap.ts) AS starts,
    max(snap.ts) AS closed_at,
    count(DISTINCT snap.ts) AS n,
    first(snap.spot, revision_order(snap.ts, -snap.rev)) FILTER (WHERE snap.spot IS NOT NULL)
        AS open,
    max(snap.spot) AS high,
    min(snap.spot) AS low,
    last(snap.spot, revision_order(snap.ts, snap.rev)) FILTER (WHERE snap.spot IS NOT NULL)
        AS close,
    last(snap.forward, revision_order(snap.ts, snap.rev)) AS forward,
    last(snap.atm_iv, revision_order(snap.ts, snap.rev)) AS atm_iv,
    last(snap.put_call_ratio_open_interest, revision_order(snap.ts, snap.rev))
        AS put_call_ratio_open_interest,
    last(snap.put_call_ratio_volume, revision_order(snap.ts, snap.rev))
        AS put_call_ratio_volume,
    last(snap.max_pain, revision_order(snap.ts, snap.rev)) AS max_pain,
    last(snap.skew_25_delta, revision_order(snap.ts, snap.rev)) AS skew_25_delta,
    last(snap.gamma_exposure, revision_order(snap.ts, snap.rev)) AS gamma_exposure,
    last(snap.expected_move, revision_order(snap.ts, snap.rev)) AS expected_move,
    last(snap.call_open_interest, revision_order(snap.ts, snap.rev)) AS call_open_interest,
    last(snap.put_open_interest, revision_order(snap.ts, snap.rev)) AS put_open_interest,
    snap.expiry,
    snap.underlying
FROM market_snapshots AS snap
GROUP BY 1, snap.underlying, snap.expiry
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS underlying_candles_5m
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '5 minutes', candle.starts) AS starts,
    max(candle.closed_at) AS closed_at,
    sum(candle.n)::bigint AS n,
    first(candle.open, candle.starts) FILTER (WHERE candle.open IS NOT NULL) AS open,
    max(candle.high) AS high,
    min(candle.low) AS low,
    last(candle.close, candle.starts) FILTER (WHERE candle.close IS NOT NULL) AS close,
    last(candle.forward, candle.starts) AS forward,
    last(candle.atm_iv, candle.starts) AS atm_iv,
    last(candle.put_call_ratio_open_interest, candle.starts)
        AS put_call_ratio_open_interest,
    last(candle.put_call_ratio_volume, candle.starts) AS put_call_ratio_volume,
    last(candle.max_pain, candle.starts) AS max_pain,
    last(candle.skew_25_delta, candle.starts) AS skew_25_delta,
    last(candle.gamma_exposure, candle.starts) AS gamma_exposure,
    last(candle.expected_move, candle.starts) AS expected_move,
    last(candle.call_open_interest, candle.starts) AS call_open_interest,
    last(candle.put_open_interest, candle.starts) AS put_open_interest,
    candle.expiry,
    candle.underlying
FROM underlying_candles_1m AS candle
GROUP BY 1, candle.underlying, candle.expiry
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS underlying_candles_1h
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(
        INTERVAL '1 hour', snap.ts, 'Asia/Kolkata', TIMESTAMPTZ '2000-01-03 03:45:00Z'
    ) AS starts,
    max(snap.ts) AS closed_at,
    count(DISTINCT snap.ts) AS n,
    first(snap.spot, revision_order(snap.ts, -snap.rev)) FILTER (WHERE snap.spot IS NOT NULL)
        AS open,
    max(snap.spot) AS high,
    min(snap.spot) AS low,
    last(snap.spot, revision_order(snap.ts, snap.rev)) FILTER (WHERE snap.spot IS NOT NULL)
        AS close,
    last(snap.forward, revision_order(snap.ts, snap.rev)) AS forward,
    last(snap.atm_iv, revision_order(snap.ts, snap.rev)) AS atm_iv,
    last(snap.put_call_ratio_open_interest, revision_order(snap.ts, snap.rev))
        AS put_call_ratio_open_interest,
    last(snap.put_call_ratio_volume, revision_order(snap.ts, snap.rev))
        AS put_call_ratio_volume,
    last(snap.max_pain, revision_order(snap.ts, snap.rev)) AS max_pain,
    last(snap.skew_25_delta, revision_order(snap.ts, snap.rev)) AS skew_25_delta,
    last(snap.gamma_exposure, revision_order(snap.ts, snap.rev)) AS gamma_exposure,
    last(snap.expected_move, revision_order(snap.ts, snap.rev)) AS expected_move,
    last(snap.call_open_interest, revision_order(snap.ts, snap.rev)) AS call_open_interest,
    last(snap.put_open_interest, revision_order(snap.ts, snap.rev)) AS put_open_interest,
    snap.expiry,
    snap.underlying
FROM market_snapshots AS snap
GROUP BY 1, snap.underlying, snap.expiry
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS underlying_candles_1d
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT
    time_bucket(INTERVAL '1 day', candle.starts, 'Asia/Kolkata') AS starts,
    max(candle.closed_at) AS closed_at,
    sum(candle.n)::bigint AS n,
    first(candle.open, candle.starts) FILTER (WHERE candle.open IS NOT NULL) AS open,
    max(candle.high) AS high,
    min(candle.low) AS low,
    last(candle.close, candle.starts) FILTER (WHERE candle.close IS NOT NULL) AS close,
    last(candle.forward, candle.starts) AS forward,
    last(candle.atm_iv, candle.starts) AS atm_iv,
    last(candle.put_call_ratio_open_interest, candle.starts)
        AS put_call_ratio_open_interest,
    last(candle.put_call_ratio_volume, candle.starts) AS put_call_ratio_volume,
    last(candle.max_pain, candle.starts) AS max_pain,
    last(candle.skew_25_delta, candle.starts) AS skew_25_delta,
    last(candle.gamma_exposure, candle.starts) AS gamma_exposure,
    last(candle.expected_move, candle.starts) AS expected_move,
    last(candle.call_open_interest, candle.starts) AS call_open_interest,
    last(candle.put_open_interest, candle.starts) AS put_open_interest,
    candle.expiry,
    candle.underlying
FROM underlying_candles_5m AS candle
GROUP BY 1, candle.underlying, candle.expiry
WITH NO DATA;

CALL refresh_candles('2000-01-01 00:00:00Z', now() - INTERVAL '1 day');

SELECT add_continuous_aggregate_policy(
    name, start_offset => INTERVAL '4 days', end_offset => width,
    schedule_interval => every, if_not_exists => true
)
FROM (
    VALUES
    ('contract_candles_1m'::regclass, INTERVAL '1 minute', INTERVAL '1 minute'),
    ('underlying_candles_1m', INTERVAL '1 minute', INTERVAL '1 minute'),
    ('contract_candles_5m', INTERVAL '5 minutes', INTERVAL '5 minutes'),
    ('underlying_candles_5m', INTERVAL '5 minutes', INTERVAL '5 minutes'),
    ('contract_candles_1h', INTERVAL '1 hour', INTERVAL '15 minutes'),
    ('underlying_candles_1h', INTERVAL '1 hour', INTERVAL '15 minutes'),
    ('contract_candles_1d', INTERVAL '1 day', INTERVAL '1 hour'),
    ('underlying_candles_1d', INTERVAL '1 day', INTERVAL '1 hour')
) AS aggregates (name, width, every);
