-- What exports ask: ranges of any size out, in the orders of pipeline/exports.py. Columns that may be
-- NULL are sent as a value that the tables' checks forbid, so that every row has the same length.

-- fragment: instruments_asked
SELECT instrument_id
FROM instruments
WHERE
    (%(underlying)s::text IS NULL OR underlying = %(underlying)s::text)
    AND (%(expiry)s::date IS NULL OR expiry = %(expiry)s::date)

-- fragment: symbol_is_asked
(%(underlying)s::text IS NULL OR left(symbol, -9) = %(underlying)s::text)
AND (%(expiry)s::date IS NULL OR right(symbol, 8) = to_char(%(expiry)s::date, 'YYYYMMDD'))

-- name: export_option_contracts
-- Legs in [start, end), of all instruments or of those asked for.
COPY (
    SELECT
        ts, instrument_id, rev, coalesce(last, 'NaN'), coalesce(bid, 'NaN'), coalesce(ask, 'NaN'),
        coalesce(average, 'NaN'), coalesce(previous_close, 'NaN'), coalesce(bid_size, -1),
        coalesce(ask_size, -1), coalesce(volume, -1), coalesce(open_interest, -1),
        coalesce(previous_open_interest, -1), coalesce(iv, 'NaN'), coalesce(delta, 'NaN'),
        coalesce(gamma, 'NaN'), coalesce(theta, 'NaN'), coalesce(vega, 'NaN'),
        coalesce(rho, 'NaN'), coalesce(iv_fit, 'NaN'), coalesce(iv_provider, 'NaN'),
        coalesce(delta_provider, 'NaN'), coalesce(gamma_provider, 'NaN'),
        coalesce(theta_provider, 'NaN'), coalesce(vega_provider, 'NaN'),
        iv_status, price_source, greeks_source
    FROM option_contracts
    WHERE
        ts >= %(start)s AND ts < %(end)s
        AND (%(is_everything)s OR instrument_id IN ({instruments_asked}))
    ORDER BY ts, instrument_id, rev
) TO STDOUT (FORMAT binary)

-- name: export_ticks
-- Ticks in [start, end), of all instruments or of those asked for; in the order of their key, which
-- needs no sorting.
COPY (
    SELECT
        ts, coalesce(ts_event, '-infinity'), instrument_id, place, coalesce(last, 'NaN'),
        coalesce(last_size, -1), coalesce(bid, 'NaN'), coalesce(ask, 'NaN'),
        coalesce(bid_size, -1), coalesce(ask_size, -1), coalesce(volume, -1),
        coalesce(open_interest, -1)
    FROM ticks
    WHERE
        ts >= %(start)s AND ts < %(end)s
        AND (%(is_everything)s OR instrument_id IN ({instruments_asked}))
    ORDER BY instrument_id, ts, place
) TO STDOUT (FORMAT binary)

-- name: export_market_snapshots
-- Snapshots of chains in [start, end).
SELECT
    ts AS ts_ingest, ts_event, ts_enrich, epoch, seq, underlying,
    underlying || '-' || to_char(expiry, 'YYYYMMDD') AS chain, expiry, provider, rev, model, rate,
    years, spot, forward, discount, forward_source, forward_pairs, forward_residual, lot, n,
    atm_strike, atm_iv, put_call_ratio_open_interest, put_call_ratio_volume, call_open_interest,
    put_open_interest, max_pain, skew_25_delta, gamma_exposure, expected_move, smile_a, smile_b,
    smile_rho, smile_m, smile_sigma, smile_error, smile_points, smile_status
FROM market_snapshots
WHERE
    ts >= %(start)s AND ts < %(end)s
    AND (%(underlying)s::text IS NULL OR underlying = %(underlying)s::text)
    AND (%(expiry)s::date IS NULL OR expiry = %(expiry)s::date)
ORDER BY ts, underlying, expiry, provider, rev

-- fragment: defined_instruments
SELECT
    instrument_id, symbol, underlying, expiry, strike, kind, provider, security_id, lot,
    valid_from, nullif(valid_to, 'infinity') AS valid_to
FROM instruments
WHERE instrument_id IN ({instruments_asked})

-- name: export_instruments
-- Definitions of contracts that held in [start, end).
{defined_instruments}
AND valid_from < %(end)s AND valid_to > %(start)s
ORDER BY underlying, expiry, strike, kind, provider, valid_from

-- name: instruments_of_export
-- Every definition of the contracts that are asked for.
{defined_instruments}
ORDER BY instrument_id

-- name: export_gaps
-- Gaps that reach into [start, end).
SELECT starts, ends, missed, symbol, provider, cause, detail
FROM gaps
WHERE starts < %(end)s AND ends > %(start)s AND {symbol_is_asked}
ORDER BY starts, symbol, provider

-- name: export_coverage
-- Minutes in [start, end) by chain: what was to come, and what came.
SELECT minute, symbol, provider, expected, present, missed_upstream, missed_us
FROM coverage
WHERE minute >= %(start)s AND minute < %(end)s AND {symbol_is_asked}
ORDER BY minute, symbol, provider
