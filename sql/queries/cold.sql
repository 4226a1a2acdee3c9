-- What the cold store asks: whole days out, in the orders of pipeline/cold/datasets.py, and back.

-- fragment: underlying_of_symbol
    regexp_replace(symbol, '-[0-9]+$', '')

-- fragment: cold_lines
-- Lines of a day, with the chain that their message ids name.
SELECT id, stream_id, ts, n, rejected, split_part(id, ':', 2) AS symbol
FROM ledger
WHERE ts >= %(start)s AND ts < %(end)s


-- name: read_one_state
-- What the transaction reads from here on is one state of the database.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: ledger_by_day
-- How many lines the ledger has for each day of the exchange.
SELECT (ts AT TIME ZONE 'Asia/Kolkata')::date AS day, count(*) AS lines
FROM ledger
GROUP BY 1
ORDER BY 1

-- name: underlyings_of_day
-- Underlyings of which anything is stored in [start, end).
SELECT DISTINCT {underlying_of_symbol} AS underlying
FROM (
    SELECT symbol FROM ({cold_lines}) AS lines
    UNION
    SELECT underlying FROM market_snapshots WHERE ts >= %(start)s AND ts < %(end)s
    UNION
    SELECT symbol FROM coverage WHERE minute >= %(start)s AND minute < %(end)s
    UNION
    SELECT symbol FROM gaps WHERE starts >= %(start)s AND starts < %(end)s
) AS seen
ORDER BY 1

-- name: snapshots_of_day
-- How many snapshots of an underlying are stored in [start, end).
SELECT count(*) AS snapshots
FROM market_snapshots
WHERE underlying = %(underlying)s AND ts >= %(start)s AND ts < %(end)s

-- name: copy_ledger_out
-- The lines of an underlying in [start, end).
COPY (
    SELECT id, stream_id, ts, n, rejected
    FROM ({cold_lines}) AS lines
    WHERE {underlying_of_symbol} = %(underlying)s
    ORDER BY ts, id
) TO STDOUT (FORMAT binary)

-- name: copy_snapshots_out
-- The snapshots of an underlying in [start, end).
COPY (
    SELECT
        ts, ts_event, ts_enrich, seq, call_open_interest, put_open_interest, spot, forward,
        discount, years, rate, forward_residual, atm_strike, atm_iv, put_call_ratio_open_interest,
        put_call_ratio_volume, max_pain, expiry, lot, forward_pairs, n, rev, provider, epoch,
        model, forward_source, skew_25_delta, gamma_exposure, expected_move, smile_a, smile_b,
        smile_rho, smile_m, smile_sigma, smile_error, smile_points, smile_status
    FROM market_snapshots
    WHERE underlying = %(underlying)s AND ts >= %(start)s AND ts < %(end)s
    ORDER BY ts, expiry, provider, rev
) TO STDOUT (FORMAT binary)

-- name: copy_contracts_out
-- The legs that stand at some instants, which lie in [first, last]: without the bounds no chunk is
-- left out. Most instants have one chain, so that few legs of others come along.
COPY (
    SELECT
        ts, volume, instrument_id, bid_size, ask_size, open_interest, previous_open_interest,
        last, bid, ask, average, previous_close, iv, delta, gamma, theta, vega, rho, iv_fit,
        iv_provider, delta_provider, gamma_provider, theta_provider, vega_provider,
        rev, iv_status, price_source, greeks_source
    FROM option_contracts
    WHERE ts = ANY(%(instants)s::timestamptz[]) AND ts >= %(first)s AND ts <= %(last)s
    ORDER BY ts, instrument_id, rev
) TO STDOUT (FORMAT binary)

-- name: copy_instruments_out
-- Every definition of the contracts of an underlying.
COPY (
    SELECT
        instrument_id, symbol, expiry, strike, kind, provider, security_id, lot, valid_from,
        nullif(valid_to, 'infinity')
    FROM instruments
    WHERE underlying = %(underlying)s
    ORDER BY symbol, provider, valid_from
) TO STDOUT (FORMAT binary)

-- name: copy_coverage_out
-- The coverage of an underlying's chains in [start, end).
COPY (
    SELECT minute, symbol, provider, expected, present
    FROM coverage
    WHERE minute >= %(start)s AND minute < %(end)s
        AND {underlying_of_symbol} = %(underlying)s
    ORDER BY minute, symbol, provider
) TO STDOUT (FORMAT binary)

-- name: copy_gaps_out
-- The gaps of an underlying's chains that begin in [start, end).
COPY (
    SELECT starts, ends, missed, symbol, provider, cause, detail
    FROM gaps
    WHERE starts >= %(start)s AND starts < %(end)s
        AND {underlying_of_symbol} = %(underlying)s
    ORDER BY starts, symbol, provider
) TO STDOUT (FORMAT binary)


-- name: expect_snapshots
-- At least so many snapshots were due in these minutes; said twice it is as said once.
INSERT INTO coverage (minute, symbol, provider, expected)
SELECT given.minute, given.symbol, given.provider, given.expected
FROM unnest(
    %(minutes)s::timestamptz[], %(symbols)s::text[], %(providers)s::text[], %(expected)s::integer[]
) AS given (minute, symbol, provider, expected)
ON CONFLICT (symbol, minute, provider)
DO UPDATE SET expected = excluded.expected
WHERE coverage.expected < excluded.expected

-- name: add_gaps
-- Gaps that are not known yet.
INSERT INTO gaps (starts, ends, missed, symbol, provider, cause, detail)
SELECT given.starts, given.ends, given.missed, given.symbol, given.provider, given.cause,
    given.detail
FROM unnest(
    %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(missed)s::integer[],
    %(symbols)s::text[], %(providers)s::text[], %(causes)s::text[], %(details)s::text[]
) AS given (starts, ends, missed, symbol, provider, cause, detail)
ON CONFLICT (symbol, starts, provider) DO NOTHING
