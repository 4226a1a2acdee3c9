-- Updates of contracts from a live feed. No worker writes them yet.


-- name: copy_ticks
-- Ticks, as the worker of a feed will write them.
COPY ticks (
    ts, ts_event, volume, instrument_id, last, bid, ask, last_size, bid_size, ask_size,
    open_interest, place
) FROM STDIN (FORMAT binary)

-- fragment: ticks_between
SELECT
    (extract(epoch FROM ticks.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    (extract(epoch FROM ticks.ts_event) * 1000000)::bigint * 1000 AS ts_event,
    ticks.place, ticks.instrument_id, ticks.last, ticks.last_size, ticks.bid, ticks.ask,
    ticks.bid_size, ticks.ask_size, ticks.volume, ticks.open_interest
FROM ticks
WHERE
    ticks.instrument_id = ANY(%(instrument_ids)s::integer[])
    AND ticks.ts >= %(start)s AND ticks.ts < %(end)s

-- name: contract_ticks
-- Ticks of contracts in [start, end) behind a position (NULL: from the first), oldest first.
{ticks_between}
AND (
    %(after)s::timestamptz IS NULL
    OR (ticks.ts, ticks.place, ticks.instrument_id)
    > (%(after)s::timestamptz, %(after_place)s::integer, %(after_instrument)s::integer)
)
ORDER BY ticks.ts, ticks.place, ticks.instrument_id
LIMIT %(limit)s

-- name: contract_ticks_newest_first
-- Ticks of contracts in [start, end) behind a position (NULL: from the last), newest first.
{ticks_between}
AND (
    %(after)s::timestamptz IS NULL
    OR (ticks.ts, ticks.place, ticks.instrument_id)
    < (%(after)s::timestamptz, %(after_place)s::integer, %(after_instrument)s::integer)
)
ORDER BY ticks.ts DESC, ticks.place DESC, ticks.instrument_id DESC
LIMIT %(limit)s
