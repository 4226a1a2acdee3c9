-- What the storage worker asks beside its COPY.

-- name: stored_legs
-- Which of these contracts have a row in a snapshot.
SELECT instrument_id
FROM option_contracts
WHERE ts = %(ts)s AND rev = %(rev)s AND instrument_id = ANY(%(instrument_ids)s::integer[])

-- name: count_present
-- Count snapshots to the minutes in which they were received.
INSERT INTO coverage (minute, symbol, provider, present)
SELECT counted.minute, counted.symbol, counted.provider, counted.present
FROM unnest(
    %(minutes)s::timestamptz[], %(symbols)s::text[], %(providers)s::text[], %(counts)s::integer[]
) AS counted (minute, symbol, provider, present)
ON CONFLICT (symbol, minute, provider)
DO UPDATE SET present = coverage.present + excluded.present

-- name: move_from_rejected
-- A leg that was set aside is stored now, beside its chain; gives that line of the ledger.
UPDATE ledger SET n = n + 1, rejected = rejected - 1
WHERE id = %(id)s AND rejected > 0
RETURNING id
