-- What the keeper asks: who keeps, and what goes.

-- name: try_keeping
-- Whether this session is the one that keeps; it is until it ends or lets go.
SELECT pg_try_advisory_lock(hashtextextended('stockify.keeping', 0)) AS is_mine

-- name: check_writing
-- Fails where the server takes no writes, and does nothing else.
DELETE FROM coverage WHERE false

-- name: end_keeping
-- Let another session keep.
SELECT pg_advisory_unlock(hashtextextended('stockify.keeping', 0))

-- name: drop_days
-- Drop snapshots and contracts of UTC days before one; gives how many partitions or chunks.
SELECT drop_days(%(before)s) AS dropped

-- name: set_retention
-- Have the server itself, where it has policies, drop days of more than so many ago; 0 keeps all.
SELECT set_retention(%(days)s::integer)

-- name: forget_entries
-- Remove some lines of the ledger of what was received before an instant.
DELETE FROM ledger
WHERE id IN (SELECT id FROM ledger WHERE ts < %(before)s LIMIT %(most)s)

-- name: forget_coverage
-- Remove some minutes of coverage before an instant.
DELETE FROM coverage
WHERE (symbol, minute, provider) IN (
    SELECT symbol, minute, provider FROM coverage WHERE minute < %(before)s LIMIT %(most)s
)

-- name: forget_gaps
-- Remove some gaps that ended before an instant.
DELETE FROM gaps
WHERE (symbol, starts, provider) IN (
    SELECT symbol, starts, provider FROM gaps WHERE ends < %(before)s LIMIT %(most)s
)
