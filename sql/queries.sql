-- Every query of the project, named and described. A fragment is text that other queries take in
-- by its name in braces; it is no query itself. Instants come out as int ns, absent as NULL.


-- fragment: leg_values
    leg.last, leg.bid, leg.ask, leg.average, leg.previous_close,
    leg.bid_size, leg.ask_size, leg.volume, leg.open_interest, leg.previous_open_interest,
    leg.iv, leg.delta, leg.gamma, leg.theta, leg.vega, leg.rho, leg.iv_fit,
    leg.iv_provider, leg.delta_provider, leg.gamma_provider, leg.theta_provider,
    leg.vega_provider, leg.iv_status, leg.price_source, leg.greeks_source

-- fragment: snapshot_values
    (extract(epoch FROM snap.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    (extract(epoch FROM snap.ts_event) * 1000000)::bigint * 1000 AS ts_event,
    (extract(epoch FROM snap.ts_enrich) * 1000000)::bigint * 1000 AS ts_enrich,
    snap.epoch, snap.seq, snap.underlying,
    snap.underlying || '-' || to_char(snap.expiry, 'YYYYMMDD') AS chain,
    snap.expiry, snap.provider, snap.rev, snap.model, snap.rate, snap.years,
    snap.spot, snap.forward, snap.discount, snap.forward_source, snap.forward_pairs,
    snap.forward_residual, snap.lot, snap.n, snap.atm_strike, snap.atm_iv,
    snap.put_call_ratio_open_interest, snap.put_call_ratio_volume,
    snap.call_open_interest, snap.put_open_interest, snap.max_pain,
    snap.skew_25_delta, snap.gamma_exposure, snap.expected_move,
    CASE WHEN snap.smile_status IS NOT NULL
        THEN json_build_object(
            'a', snap.smile_a, 'b', snap.smile_b, 'rho', snap.smile_rho, 'm', snap.smile_m,
            'sigma', snap.smile_sigma, 'error', snap.smile_error, 'points', snap.smile_points,
            'status', snap.smile_status
        )
    END AS smile

-- fragment: instrument_values
    instrument_id, symbol, underlying, expiry, strike, kind, provider, security_id, lot,
    (extract(epoch FROM valid_from) * 1000000)::bigint * 1000 AS valid_from,
    CASE WHEN valid_to < 'infinity'
        THEN (extract(epoch FROM valid_to) * 1000000)::bigint * 1000
    END AS valid_to

-- fragment: ledger_entries
-- What was received in [start, end), revisions of one entry as one: minute since 1970, kind (as the
-- tallies of the bus), symbol, identity (the first ten hex digits of the md5 of its raw message id)
-- and contracts.
SELECT
    floor(extract(epoch FROM min(ts)) / 60)::bigint AS minute,
    CASE WHEN bool_or(is_report) THEN 'polls' ELSE 'chain' END AS kind,
    split_part(raw_id, ':', 2) AS symbol,
    ('x' || substr(md5(raw_id), 1, 10))::bit(40)::bigint AS identity,
    max(n) AS contracts
FROM (
    SELECT regexp_replace(id, ':r[0-9]+$', '') AS raw_id, ts, n + rejected AS n,
        {is_report} AS is_report
    FROM ledger
    WHERE ts >= %(start)s AND ts < %(end)s
) AS received
GROUP BY raw_id


-- name: ping
-- Whether the server answers.
SELECT 1 AS alive

-- name: underlyings
-- Underlyings that have contracts, with their expiries, ascending.
SELECT underlying, array_agg(DISTINCT expiry ORDER BY expiry) AS expiries
FROM instruments
GROUP BY underlying
ORDER BY underlying

-- name: instruments_of_symbol
-- Every definition of a contract, oldest first.
SELECT {instrument_values}
FROM instruments
WHERE symbol = %(symbol)s
ORDER BY valid_from, provider

-- name: instruments_of_chain
-- Every definition of the contracts of a chain, by strike, the call before the put.
SELECT {instrument_values}
FROM instruments
WHERE underlying = %(underlying)s AND expiry = %(expiry)s
ORDER BY strike, kind, valid_from, provider


-- name: lock_instruments
-- One session at a time defines the contracts of a chain; held to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('stockify.instruments.' || %(chain)s, 0))

-- name: add_instruments
-- Define contracts from an instant on, up to another or for ever (NULL).
INSERT INTO instruments (
    symbol, underlying, expiry, strike, kind, provider, security_id, lot, valid_from, valid_to
)
SELECT
    added.symbol, %(underlying)s, %(expiry)s, added.strike, added.kind, %(provider)s,
    added.security_id, added.lot, %(valid_from)s, coalesce(added.valid_to, 'infinity')
FROM unnest(
    %(symbols)s::text[], %(strikes)s::double precision[], %(kinds)s::text[],
    %(security_ids)s::bigint[], %(lots)s::integer[], %(valid_to)s::timestamptz[]
) AS added (symbol, strike, kind, security_id, lot, valid_to)

-- name: extend_instruments
-- The definitions held from an earlier instant on.
UPDATE instruments
SET valid_from = %(valid_from)s
WHERE instrument_id = ANY(%(instrument_ids)s) AND valid_from > %(valid_from)s

-- name: end_instruments
-- The definitions hold no longer from an instant on.
UPDATE instruments
SET valid_to = %(valid_to)s
WHERE instrument_id = ANY(%(instrument_ids)s)

-- name: complete_instruments
-- Fill in or replace what a definition says of lot and provider id.
UPDATE instruments
SET security_id = given.security_id, lot = given.lot
FROM unnest(
    %(instrument_ids)s::integer[], %(security_ids)s::bigint[], %(lots)s::integer[]
) AS given (instrument_id, security_id, lot)
WHERE instruments.instrument_id = given.instrument_id


-- name: make_days
-- Make sure that rows of these UTC days have a place.
SELECT count(make_day(day)) AS days FROM unnest(%(days)s::date[]) AS day

-- name: limit_idle_transactions
-- How long, in ms, the server keeps a transaction of this session whose client says nothing.
SELECT set_config('idle_in_transaction_session_timeout', %(ms)s, false) AS ms

-- name: limit_statements
-- How long, in ms, the server works at one statement of this session.
SELECT set_config('statement_timeout', %(ms)s, false) AS ms

-- name: ledger_known
-- Which of these entries have their rows committed, and how many legs of each were set aside.
SELECT id, rejected FROM ledger WHERE id = ANY(%(ids)s)

-- name: uneven_instants
-- Instants of receipt in a range at which ledger, chains and legs do not tell the same story; a
-- line that has no chain, or legs that no line speaks of, are uneven too.
SELECT (extract(epoch FROM ts) * 1000000)::bigint * 1000 AS ts_ingest,
    coalesce(line.lines, 0) AS lines, coalesce(line.wanted, 0) AS wanted,
    coalesce(snap.snapshots, 0) AS snapshots, coalesce(leg.legs, 0) AS legs
FROM (
    SELECT ts, count(*) AS lines, sum(n) AS wanted
    FROM ledger WHERE ts >= %(start)s AND ts < %(end)s AND NOT {is_report} GROUP BY ts
) AS line
FULL JOIN (
    SELECT ts, count(*) AS snapshots
    FROM market_snapshots WHERE ts >= %(start)s AND ts < %(end)s GROUP BY ts
) AS snap USING (ts)
FULL JOIN (
    SELECT ts, count(*) AS legs
    FROM option_contracts WHERE ts >= %(start)s AND ts < %(end)s GROUP BY ts
) AS leg USING (ts)
WHERE coalesce(line.lines, 0) <> coalesce(snap.snapshots, 0)
    OR coalesce(line.wanted, 0) <> coalesce(leg.legs, 0)
ORDER BY ts

-- name: ledger_tally
-- Entries of the ledger received in [start, end), by minute, kind and symbol: how many, the sum of
-- their identities, contracts.
SELECT
    minute, kind, symbol, count(*) AS n, sum(identity)::bigint AS h, sum(contracts)::bigint AS c
FROM ({ledger_entries}) AS entries
GROUP BY minute, kind, symbol

-- name: ledger_identities
-- The identities of the entries of the ledger received in [start, end), with kinds and symbols.
SELECT kind, symbol, identity
FROM ({ledger_entries}) AS entries

-- name: copy_ledger
-- Lines for committed entries, in the order of pipeline/rows.py.
COPY ledger (id, stream_id, ts, n, rejected) FROM STDIN (FORMAT binary)

-- name: copy_market_snapshots
-- Rows for chain snapshots, in the order of pipeline/rows.py.
COPY market_snapshots (
    ts, ts_event, ts_enrich, seq, call_open_interest, put_open_interest, spot, forward, discount,
    years, rate, forward_residual, atm_strike, atm_iv, put_call_ratio_open_interest,
    put_call_ratio_volume, max_pain, expiry, lot, forward_pairs, n, rev, underlying, provider,
    epoch, model, forward_source, skew_25_delta, gamma_exposure, expected_move, smile_a, smile_b,
    smile_rho, smile_m, smile_sigma, smile_error, smile_points, smile_status
) FROM STDIN (FORMAT binary)

-- name: copy_option_contracts
-- Rows for legs, in the binary format that pipeline/kernels/copyrows.py writes, in its order.
COPY option_contracts (
    ts, volume, instrument_id, bid_size, ask_size, open_interest, previous_open_interest,
    last, bid, ask, average, previous_close, iv, delta, gamma, theta, vega, rho, iv_fit,
    iv_provider, delta_provider, gamma_provider, theta_provider, vega_provider,
    rev, iv_status, price_source, greeks_source
) FROM STDIN (FORMAT binary)


-- name: lock_migrations
-- One session at a time migrates; held until the session ends or unlocks.
SELECT pg_advisory_lock(hashtextextended('stockify.migrations', 0))

-- name: unlock_migrations
-- Let the next session migrate.
SELECT pg_advisory_unlock(hashtextextended('stockify.migrations', 0))

-- name: create_schema_migrations
-- The record of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: has_schema_migrations
-- Whether there is a record of applied migrations.
SELECT to_regclass('schema_migrations') IS NOT NULL AS is_there

-- name: applied_migrations
-- Migrations applied so far.
SELECT number, name, checksum FROM schema_migrations ORDER BY number

-- name: record_migration
-- A migration has been applied.
INSERT INTO schema_migrations (number, name, checksum)
VALUES (%(number)s, %(name)s, %(checksum)s)

-- name: server_edition
-- What decides which migrations a database takes: whether it began with native partitions, and
-- whether TimescaleDB is installed here, or could be, and under which licence.
SELECT
    EXISTS (
        SELECT FROM pg_class WHERE oid = to_regclass('option_contracts') AND relkind = 'p'
    ) AS is_partitioned,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') AS is_installed,
    EXISTS (
        SELECT FROM pg_available_extensions
        WHERE
            name = 'timescaledb'
            AND 'timescaledb' = ANY(
                regexp_split_to_array(current_setting('shared_preload_libraries'), '[,\s"]+')
            )
    ) AS is_available,
    current_setting('timescaledb.license', true) AS license
