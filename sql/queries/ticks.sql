-- Updates of contracts from a live feed. No worker writes them yet.


-- name: copy_ticks
-- Ticks, as the worker of a feed will write them.
COPY ticks (
    ts, ts_event, volume, instrument_id, last, bid, ask, last_size, bid_size, ask_size,
    open_interest, place
) FROM STDIN (FORMAT binary)

-- name: contract_ticks
-- Ticks of contracts in [start, end), oldest first, after a (ts, place) if that is given.
SELECT
    (extract(epoch FROM ticks.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    (extract(epoch FROM ticks.ts_event) * 1000000)::bigint * 1000 AS ts_event,
    ticks.place, ticks.instrument_id, ticks.last, ticks.last_size, ticks.bid, ticks.ask,
    ticks.bid_size, ticks.ask_size, ticks.volume, ticks.open_interest
FROM ticks
WHERE
    ticks.instrument_id = ANY(%(instrument_ids)s::integer[])
    AND ticks.ts >= %(start)s AND ticks.ts < %(end)s
    AND (
        %(after)s::timestamptz IS NULL
        OR (ticks.ts, ticks.place) > (%(after)s::timestamptz, %(after_place)s::integer)
    )
ORDER BY ticks.ts, ticks.place, ticks.instrument_id
LIMIT %(limit)s
