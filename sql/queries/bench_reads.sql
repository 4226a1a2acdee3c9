-- What `stockify bench storage` makes and measures its reads on, beside the queries themselves.

-- name: bench_add_snapshots
-- A day of snapshots of one chain, one every step, the volatility at the money turning in waves.
INSERT INTO market_snapshots (
    ts, ts_enrich, seq, call_open_interest, put_open_interest, spot, forward, discount, years, rate,
    forward_residual, atm_strike, atm_iv, put_call_ratio_open_interest, put_call_ratio_volume,
    max_pain, expiry, lot, forward_pairs, n, rev, underlying, provider, epoch, model,
    forward_source, skew_25_delta, gamma_exposure, expected_move, smile_a, smile_b, smile_rho,
    smile_m, smile_sigma, smile_error, smile_points, smile_status
)
SELECT
    seen.ts, seen.ts + '2 ms', number + 1, 40000000 + number, 50000000 - number,
    %(spot)s + 100 * sin(wave), %(spot)s + 12 + 100 * sin(wave), 0.999, 0.02, 0.065,
    0.4, %(spot)s, 0.12 + 0.02 * cos(wave), 0.9 + 0.1 * sin(wave), 1.1 + 0.1 * cos(wave),
    %(spot)s, %(expiry)s, 65, 20, %(n)s, 1, %(underlying)s, 'simulator', 'bench', 'black76',
    'parity', 0.01, 1e9 * sin(wave), 300, 1e-4, 0.02, -0.3,
    0.01, 0.04, 0.1, 40, 'ok'
FROM generate_series(0, %(snapshots)s - 1) AS number
CROSS JOIN LATERAL (
    SELECT %(first)s::timestamptz + number * %(step)s::interval AS ts, number / 300.0 AS wave
) AS seen

-- name: bench_make_unpartitioned
-- The schema in which the same tables stand as plain heaps.
CREATE SCHEMA unpartitioned

-- name: bench_make_heap_of_snapshots
-- An empty heap like market_snapshots.
CREATE TABLE unpartitioned.market_snapshots (LIKE public.market_snapshots INCLUDING ALL)

-- name: bench_make_heap_of_contracts
-- An empty heap like option_contracts.
CREATE TABLE unpartitioned.option_contracts (LIKE public.option_contracts INCLUDING ALL)

-- name: bench_make_heap_of_candles
-- An empty heap like contract_candles_1m.
CREATE TABLE unpartitioned.contract_candles_1m (LIKE public.contract_candles_1m INCLUDING ALL)

-- name: bench_fill_heap_of_candles
-- The same candles in the order of their key.
INSERT INTO unpartitioned.contract_candles_1m
SELECT * FROM public.contract_candles_1m ORDER BY starts, instrument_id

-- name: bench_read_public
-- Named queries ask the tables as they are shipped.
SET search_path = public

-- name: bench_read_unpartitioned
-- Named queries ask the heaps, and for all else the tables as they are shipped.
SET search_path = unpartitioned, public

-- name: bench_vacuum
-- What a server does by itself in a quiet hour.
VACUUM (ANALYZE)
