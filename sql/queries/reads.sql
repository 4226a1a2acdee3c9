-- What is read of the past: histories, chains as of an instant, the newest of every contract, series
-- of a chain's aggregates, and whole ranges. Where a snapshot was calculated more than once the
-- highest revision speaks, or the one that is asked for (%(rev)s).


-- fragment: asked_revision
(%(rev)s::smallint IS NULL OR snap.rev = %(rev)s::smallint)

-- fragment: chain_instants_between
-- Where an instant has several rows, the last of them in the order of the key is the one that
-- speaks; newest first, the key is read backwards and nothing is sorted.
SELECT DISTINCT ON (snap.ts, snap.provider)
    snap.ts,
    (extract(epoch FROM snap.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    (extract(epoch FROM snap.ts_event) * 1000000)::bigint * 1000 AS ts_event,
    snap.provider, snap.rev, snap.spot, snap.forward
FROM market_snapshots AS snap
WHERE
    snap.underlying = %(underlying)s AND snap.expiry = %(expiry)s
    AND snap.ts >= %(start)s AND snap.ts < %(end)s
    AND snap.provider = ANY(%(providers)s::text[])
    AND {asked_revision}

-- fragment: underlying_rows
SELECT DISTINCT ON (snap.ts, snap.expiry, snap.provider) {snapshot_values}
FROM market_snapshots AS snap
WHERE
    snap.underlying = %(underlying)s
    AND snap.ts >= %(start)s AND snap.ts < %(end)s
    AND {asked_revision}

-- fragment: interval_start
(extract(epoch FROM candle_start(snap.ts, %(seconds)s::integer)) * 1000000)::bigint * 1000

-- fragment: last_of_intervals
-- Which instants are the last of their intervals is read from the key alone, and only they from the
-- table.
FROM market_snapshots AS snap
WHERE
    snap.underlying = %(underlying)s AND snap.expiry = %(expiry)s
    AND snap.ts >= %(start)s AND snap.ts < %(end)s
    AND {asked_revision}
    AND snap.ts = ANY(
        ARRAY(
            SELECT max(snap.ts)
            FROM market_snapshots AS snap
            WHERE
                snap.underlying = %(underlying)s AND snap.expiry = %(expiry)s
                AND snap.ts >= %(start)s AND snap.ts < %(end)s
                AND {asked_revision}
            GROUP BY candle_start(snap.ts, %(seconds)s::integer)
        )
    )

-- fragment: chain_legs_between
SELECT DISTINCT ON (leg.ts, leg.instrument_id)
    (extract(epoch FROM leg.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    instruments.symbol, instruments.strike, instruments.kind, instruments.provider, leg.rev,
    {leg_values}
FROM option_contracts AS leg
INNER JOIN instruments USING (instrument_id)
WHERE
    leg.ts >= %(start)s AND leg.ts < %(end)s
    AND (%(rev)s::smallint IS NULL OR leg.rev = %(rev)s::smallint)
    AND instruments.underlying = %(underlying)s AND instruments.expiry = %(expiry)s
ORDER BY leg.ts, leg.instrument_id, leg.rev DESC


-- name: chain_instants
-- Instants in [start, end) at which a chain was received, oldest first, and what held for all legs.
{chain_instants_between}
ORDER BY snap.ts, snap.provider, snap.rev DESC
LIMIT %(limit)s

-- name: chain_instants_newest_first
-- Instants in [start, end) at which a chain was received, newest first, and what held for all legs.
{chain_instants_between}
ORDER BY snap.ts DESC, snap.provider DESC, snap.rev DESC
LIMIT %(limit)s

-- name: underlying_history
-- Snapshots of all chains of an underlying in [start, end) behind a position, oldest first.
{underlying_rows}
AND (snap.ts, snap.expiry) > (%(after_ts)s, %(after_expiry)s)
ORDER BY snap.ts, snap.expiry, snap.provider, snap.rev DESC
LIMIT %(limit)s

-- name: underlying_history_newest_first
-- Snapshots of all chains of an underlying in [start, end) behind a position, newest first.
{underlying_rows}
AND (snap.ts, snap.expiry) < (%(after_ts)s, %(after_expiry)s)
ORDER BY snap.ts DESC, snap.expiry DESC, snap.provider DESC, snap.rev DESC
LIMIT %(limit)s

-- name: chain_history
-- Snapshots of one chain in [start, end), oldest first.
{underlying_rows}
AND snap.expiry = %(expiry)s
ORDER BY snap.ts, snap.expiry, snap.provider, snap.rev DESC
LIMIT %(limit)s

-- name: chain_history_newest_first
-- Snapshots of one chain in [start, end), newest first.
{underlying_rows}
AND snap.expiry = %(expiry)s
ORDER BY snap.ts DESC, snap.expiry DESC, snap.provider DESC, snap.rev DESC
LIMIT %(limit)s

-- name: chain_snapshot_as_of
-- The last snapshot of a chain in [since, at].
SELECT {snapshot_values}
FROM market_snapshots AS snap
WHERE
    snap.underlying = %(underlying)s AND snap.expiry = %(expiry)s
    AND snap.ts >= %(since)s AND snap.ts <= %(at)s
    AND {asked_revision}
ORDER BY snap.ts DESC, snap.provider DESC, snap.rev DESC
LIMIT 1

-- name: chain_headers_as_of
-- Of each chain of an underlying that had not expired on a day the last snapshot in [since, at].
SELECT latest.*
FROM (
    SELECT DISTINCT expiry
    FROM instruments
    WHERE underlying = %(underlying)s AND expiry >= %(day)s
) AS listed
CROSS JOIN LATERAL (
    SELECT {snapshot_values}
    FROM market_snapshots AS snap
    WHERE
        snap.underlying = %(underlying)s AND snap.expiry = listed.expiry
        AND snap.ts >= %(since)s AND snap.ts <= %(at)s
        AND {asked_revision}
    ORDER BY snap.ts DESC, snap.provider DESC, snap.rev DESC
    LIMIT 1
) AS latest
ORDER BY latest.expiry

-- name: chain_legs
-- The legs of one snapshot, by strike, the call before the put.
SELECT instruments.symbol, instruments.strike, instruments.kind, instruments.security_id, {leg_values}
FROM option_contracts AS leg
INNER JOIN instruments USING (instrument_id)
WHERE
    leg.ts = %(ts)s AND leg.rev = %(rev)s
    AND instruments.underlying = %(underlying)s AND instruments.expiry = %(expiry)s
    AND instruments.provider = %(provider)s
ORDER BY instruments.strike, instruments.kind

-- name: legs_at
-- Legs of some contracts at some instants, which lie in [first, last]. All instants go into one scan
-- of the key; a probe for each, as a join would do it, costs a hypertable 60 µs a row.
SELECT
    (extract(epoch FROM leg.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    leg.instrument_id, leg.rev, {leg_values}
FROM option_contracts AS leg
WHERE
    leg.ts = ANY(%(instants)s::timestamptz[])
    AND leg.ts >= %(first)s AND leg.ts <= %(last)s
    AND leg.instrument_id = ANY(%(instrument_ids)s::integer[])

-- name: newest_legs_at
-- Of each of some contracts its last row at some instants, which lie in [first, last].
SELECT DISTINCT ON (leg.instrument_id)
    (extract(epoch FROM leg.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    leg.instrument_id, leg.rev, {leg_values}
FROM option_contracts AS leg
WHERE
    leg.ts = ANY(%(instants)s::timestamptz[])
    AND leg.ts >= %(first)s AND leg.ts <= %(last)s
    AND leg.instrument_id = ANY(%(instrument_ids)s::integer[])
    AND (%(rev)s::smallint IS NULL OR leg.rev = %(rev)s::smallint)
ORDER BY leg.instrument_id, leg.ts DESC, leg.rev DESC

-- name: expiries_since
-- Expiries of an underlying on or after a day, ascending.
SELECT DISTINCT expiry
FROM instruments
WHERE underlying = %(underlying)s AND expiry >= %(since)s
ORDER BY expiry

-- name: chain_series
-- The last snapshot of a chain in each interval of [start, end), oldest first.
SELECT DISTINCT ON (snap.ts) {interval_start} AS starts, {snapshot_values}
{last_of_intervals}
ORDER BY snap.ts, snap.provider DESC, snap.rev DESC

-- name: chain_points
-- When the last snapshot of a chain in each interval of [start, end) was, oldest first, and what
-- held for all legs.
SELECT DISTINCT ON (snap.ts)
    {interval_start} AS starts,
    snap.ts,
    (extract(epoch FROM snap.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    snap.provider, snap.rev, snap.spot, snap.forward, snap.atm_iv
{last_of_intervals}
ORDER BY snap.ts, snap.provider DESC, snap.rev DESC

-- name: legs_between
-- Every leg of a chain in [start, end), by instant and contract.
{chain_legs_between}

-- name: copy_legs_between
-- Every leg of a chain in [start, end), by instant and contract, as CSV with a head.
COPY ({chain_legs_between}) TO STDOUT (FORMAT csv, HEADER)

-- name: replica_standing
-- Whether the server follows another one, and how many seconds ago what it replayed last was
-- committed there; none where it has replayed all that it received.
SELECT
    pg_is_in_recovery() AS is_standby,
    CASE
        WHEN NOT pg_is_in_recovery() THEN NULL
        WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0::double precision
        ELSE
            extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
            ::double precision
    END AS behind_s
