-- Candles: rolled ones, and those of rows that no level has yet. Editions differ in who keeps the
-- tables (migrations 0015 to 0019), not in what is asked of them.


-- fragment: candle_bucket
(extract(epoch FROM candle_start(candle.starts, %(seconds)s::integer)) * 1000000)::bigint * 1000

-- fragment: candle_prices
    (array_agg(candle.open ORDER BY candle.starts, candle.closed_at)
        FILTER (WHERE candle.open IS NOT NULL))[1] AS open,
    max(candle.high) AS high,
    min(candle.low) AS low,
    (array_agg(candle.close ORDER BY candle.starts, candle.closed_at)
        FILTER (WHERE candle.close IS NOT NULL))[count(candle.close)::integer] AS close,
    (extract(epoch FROM max(candle.closed_at)) * 1000000)::bigint * 1000 AS closed_at,
    sum(candle.n)::bigint AS n

-- fragment: contract_candle_values
    {candle_prices},
    (array_agg(candle.volume_total ORDER BY candle.starts, candle.closed_at)
        FILTER (WHERE candle.volume_total IS NOT NULL)
    )[count(candle.volume_total)::integer] AS volume_total,
    (array_agg(candle.open_interest ORDER BY candle.starts, candle.closed_at))[count(*)::integer]
        AS open_interest,
    (array_agg(candle.iv ORDER BY candle.starts, candle.closed_at))[count(*)::integer] AS iv,
    (array_agg(candle.bid ORDER BY candle.starts, candle.closed_at))[count(*)::integer] AS bid,
    (array_agg(candle.ask ORDER BY candle.starts, candle.closed_at))[count(*)::integer] AS ask

-- fragment: contract_candles_of
WHERE
    candle.instrument_id = ANY(%(instrument_ids)s::integer[])
    AND candle.starts >= %(start)s AND candle.starts < %(end)s
GROUP BY {candle_bucket}
ORDER BY {candle_bucket}

-- fragment: underlying_candle_values
    {candle_prices},
    (array_agg(candle.forward ORDER BY candle.starts))[count(*)::integer] AS forward,
    (array_agg(candle.atm_iv ORDER BY candle.starts))[count(*)::integer] AS atm_iv,
    (array_agg(candle.put_call_ratio_open_interest ORDER BY candle.starts))[count(*)::integer]
        AS put_call_ratio_open_interest,
    (array_agg(candle.put_call_ratio_volume ORDER BY candle.starts))[count(*)::integer]
        AS put_call_ratio_volume,
    (array_agg(candle.max_pain ORDER BY candle.starts))[count(*)::integer] AS max_pain,
    (array_agg(candle.skew_25_delta ORDER BY candle.starts))[count(*)::integer] AS skew_25_delta,
    (array_agg(candle.gamma_exposure ORDER BY candle.starts))[count(*)::integer]
        AS gamma_exposure,
    (array_agg(candle.expected_move ORDER BY candle.starts))[count(*)::integer] AS expected_move,
    (array_agg(candle.call_open_interest ORDER BY candle.starts))[count(*)::integer]
        AS call_open_interest,
    (array_agg(candle.put_open_interest ORDER BY candle.starts))[count(*)::integer]
        AS put_open_interest

-- fragment: underlying_candles_of
-- Of several chains the one speaks that expires next, or next after so many days.
WHERE
    candle.underlying = %(underlying)s
    AND (%(expiry)s::date IS NULL OR candle.expiry = %(expiry)s::date)
    AND (
        %(least_days)s::integer IS NULL
        OR candle.expiry
        >= (candle.starts AT TIME ZONE 'Asia/Kolkata')::date + %(least_days)s::integer
    )
    AND candle.starts >= %(start)s AND candle.starts < %(end)s
GROUP BY {candle_bucket}, candle.expiry
ORDER BY {candle_bucket}, candle.expiry


-- fragment: contract_candles_kept
-- As they were rolled: one a bucket and definition of the contract, so nothing is to be summed up.
SELECT
    (extract(epoch FROM candle.starts) * 1000000)::bigint * 1000 AS starts,
    candle.open, candle.high, candle.low, candle.close,
    (extract(epoch FROM candle.closed_at) * 1000000)::bigint * 1000 AS closed_at,
    candle.n, candle.volume_total, candle.open_interest, candle.iv, candle.bid, candle.ask

-- fragment: contract_candles_kept_of
-- Definition by definition: a plan for any parameters else goes by the key, which begins with the
-- time, and reads every contract's candles of the range.
WHERE
    kept.instrument_id = wanted.instrument_id
    AND kept.starts >= %(start)s AND kept.starts < %(end)s
OFFSET 0

-- fragment: underlying_candles_kept
SELECT DISTINCT ON (candle.starts)
    (extract(epoch FROM candle.starts) * 1000000)::bigint * 1000 AS starts, candle.expiry,
    candle.open, candle.high, candle.low, candle.close,
    (extract(epoch FROM candle.closed_at) * 1000000)::bigint * 1000 AS closed_at,
    candle.n, candle.forward, candle.atm_iv, candle.put_call_ratio_open_interest,
    candle.put_call_ratio_volume, candle.max_pain, candle.skew_25_delta, candle.gamma_exposure,
    candle.expected_move, candle.call_open_interest, candle.put_open_interest

-- fragment: underlying_candles_kept_of
WHERE
    candle.underlying = %(underlying)s
    AND (%(expiry)s::date IS NULL OR candle.expiry = %(expiry)s::date)
    AND (
        %(least_days)s::integer IS NULL
        OR candle.expiry
        >= (candle.starts AT TIME ZONE 'Asia/Kolkata')::date + %(least_days)s::integer
    )
    AND candle.starts >= %(start)s AND candle.starts < %(end)s
ORDER BY candle.starts, candle.expiry


-- name: candles_until
-- Up to where the minutes and a level are rolled, ns; 0 where nothing is.
SELECT
    (extract(epoch FROM greatest(candles_until('1m'), 'epoch')) * 1000000)::bigint * 1000 AS minutes,
    (extract(epoch FROM greatest(candles_until(%(level)s), 'epoch')) * 1000000)::bigint * 1000
        AS level

-- name: roll_candles
-- Roll minutes that have changed and are over, and the levels above; gives how many minutes.
SELECT roll_candles(%(upto)s, %(most)s) AS rolled

-- name: refresh_candles
-- Make the candles of [start, end) anew; it commits on the way, so not within a transaction.
CALL refresh_candles(%(start)s, %(end)s)

-- name: candle_span
-- When the first contract of an underlying, or of one chain, was seen, ns, and the last expiry;
-- NULL: there is none.
SELECT
    (extract(epoch FROM min(valid_from)) * 1000000)::bigint * 1000 AS starts,
    max(expiry) AS expiry
FROM instruments
WHERE
    underlying = %(underlying)s
    AND (%(expiry)s::date IS NULL OR expiry = %(expiry)s::date)

-- name: contract_candles_1m
-- Candles of a contract of whole minutes in [start, end), oldest first.
SELECT {candle_bucket} AS starts, {contract_candle_values}
FROM contract_candles_1m AS candle
{contract_candles_of}

-- name: contract_candles_5m
-- Candles of a contract of whole five minutes in [start, end), oldest first.
SELECT {candle_bucket} AS starts, {contract_candle_values}
FROM contract_candles_5m AS candle
{contract_candles_of}

-- name: contract_candles_1h
-- Candles of a contract of whole hours in [start, end), oldest first.
SELECT {candle_bucket} AS starts, {contract_candle_values}
FROM contract_candles_1h AS candle
{contract_candles_of}

-- name: contract_candles_1d
-- Candles of a contract of whole days in [start, end), oldest first.
SELECT {candle_bucket} AS starts, {contract_candle_values}
FROM contract_candles_1d AS candle
{contract_candles_of}

-- name: contract_candles_1m_kept
-- Candles of a contract of a minute each that start in [start, end), oldest first.
{contract_candles_kept}
FROM
    unnest(%(instrument_ids)s::integer[]) AS wanted (instrument_id)
    CROSS JOIN LATERAL (
        SELECT kept.*
        FROM contract_candles_1m AS kept
        {contract_candles_kept_of}
    ) AS candle
ORDER BY candle.starts, candle.closed_at

-- name: contract_candles_5m_kept
-- Candles of a contract of five minutes each that start in [start, end), oldest first.
{contract_candles_kept}
FROM
    unnest(%(instrument_ids)s::integer[]) AS wanted (instrument_id)
    CROSS JOIN LATERAL (
        SELECT kept.*
        FROM contract_candles_5m AS kept
        {contract_candles_kept_of}
    ) AS candle
ORDER BY candle.starts, candle.closed_at

-- name: contract_candles_1h_kept
-- Candles of a contract of an hour each that start in [start, end), oldest first.
{contract_candles_kept}
FROM
    unnest(%(instrument_ids)s::integer[]) AS wanted (instrument_id)
    CROSS JOIN LATERAL (
        SELECT kept.*
        FROM contract_candles_1h AS kept
        {contract_candles_kept_of}
    ) AS candle
ORDER BY candle.starts, candle.closed_at

-- name: contract_candles_1d_kept
-- Candles of a contract of a day each that start in [start, end), oldest first.
{contract_candles_kept}
FROM
    unnest(%(instrument_ids)s::integer[]) AS wanted (instrument_id)
    CROSS JOIN LATERAL (
        SELECT kept.*
        FROM contract_candles_1d AS kept
        {contract_candles_kept_of}
    ) AS candle
ORDER BY candle.starts, candle.closed_at

-- name: contract_candles_live
-- Candles of a contract from its rows in [start, end), oldest first. The instants of its chain go
-- into one scan of the key.
SELECT {candle_bucket} AS starts, {contract_candle_values}
FROM (
    SELECT DISTINCT ON (leg.ts, leg.instrument_id)
        leg.ts AS starts, leg.ts AS closed_at, 1 AS n, leg.volume AS volume_total,
        leg.last AS open, leg.last AS high, leg.last AS low, leg.last AS close,
        leg.open_interest, leg.iv, leg.bid, leg.ask
    FROM option_contracts AS leg
    WHERE
        leg.ts = ANY(
            ARRAY(
                SELECT snap.ts
                FROM market_snapshots AS snap
                WHERE
                    snap.underlying = %(underlying)s AND snap.expiry = %(expiry)s
                    AND snap.ts >= %(start)s AND snap.ts < %(end)s
            )
        )
        AND leg.ts >= %(start)s AND leg.ts < %(end)s
        AND leg.instrument_id = ANY(%(instrument_ids)s::integer[])
    ORDER BY leg.ts, leg.instrument_id, leg.rev DESC
) AS candle
GROUP BY {candle_bucket}
ORDER BY {candle_bucket}

-- name: underlying_candles_1m
-- Candles of an underlying of whole minutes in [start, end), oldest first.
SELECT DISTINCT ON ({candle_bucket})
    {candle_bucket} AS starts, candle.expiry, {underlying_candle_values}
FROM underlying_candles_1m AS candle
{underlying_candles_of}

-- name: underlying_candles_5m
-- Candles of an underlying of whole five minutes in [start, end), oldest first.
SELECT DISTINCT ON ({candle_bucket})
    {candle_bucket} AS starts, candle.expiry, {underlying_candle_values}
FROM underlying_candles_5m AS candle
{underlying_candles_of}

-- name: underlying_candles_1h
-- Candles of an underlying of whole hours in [start, end), oldest first.
SELECT DISTINCT ON ({candle_bucket})
    {candle_bucket} AS starts, candle.expiry, {underlying_candle_values}
FROM underlying_candles_1h AS candle
{underlying_candles_of}

-- name: underlying_candles_1d
-- Candles of an underlying of whole days in [start, end), oldest first.
SELECT DISTINCT ON ({candle_bucket})
    {candle_bucket} AS starts, candle.expiry, {underlying_candle_values}
FROM underlying_candles_1d AS candle
{underlying_candles_of}

-- name: underlying_candles_1m_kept
-- Candles of an underlying of a minute each that start in [start, end), oldest first.
{underlying_candles_kept}
FROM underlying_candles_1m AS candle
{underlying_candles_kept_of}

-- name: underlying_candles_5m_kept
-- Candles of an underlying of five minutes each that start in [start, end), oldest first.
{underlying_candles_kept}
FROM underlying_candles_5m AS candle
{underlying_candles_kept_of}

-- name: underlying_candles_1h_kept
-- Candles of an underlying of an hour each that start in [start, end), oldest first.
{underlying_candles_kept}
FROM underlying_candles_1h AS candle
{underlying_candles_kept_of}

-- name: underlying_candles_1d_kept
-- Candles of an underlying of a day each that start in [start, end), oldest first.
{underlying_candles_kept}
FROM underlying_candles_1d AS candle
{underlying_candles_kept_of}

-- name: underlying_candles_live
-- Candles of an underlying from the snapshots of its chains in [start, end), oldest first.
SELECT DISTINCT ON ({candle_bucket})
    {candle_bucket} AS starts, candle.expiry, {underlying_candle_values}
FROM (
    SELECT DISTINCT ON (snap.ts, snap.expiry)
        snap.ts AS starts, snap.ts AS closed_at, 1 AS n, snap.underlying, snap.expiry,
        snap.spot AS open, snap.spot AS high, snap.spot AS low, snap.spot AS close,
        snap.forward, snap.atm_iv, snap.put_call_ratio_open_interest, snap.put_call_ratio_volume,
        snap.max_pain, snap.skew_25_delta, snap.gamma_exposure, snap.expected_move,
        snap.call_open_interest, snap.put_open_interest
    FROM market_snapshots AS snap
    WHERE
        snap.underlying = %(underlying)s
        AND (%(expiry)s::date IS NULL OR snap.expiry = %(expiry)s::date)
        AND (
            %(least_days)s::integer IS NULL
            OR snap.expiry
            >= (snap.ts AT TIME ZONE 'Asia/Kolkata')::date + %(least_days)s::integer
        )
        AND snap.ts >= %(start)s AND snap.ts < %(end)s
    ORDER BY snap.ts, snap.expiry, snap.provider DESC, snap.rev DESC
) AS candle
GROUP BY {candle_bucket}, candle.expiry
ORDER BY {candle_bucket}, candle.expiry
