-- What `stockify bench storage` asks beside what the storage worker asks itself.

-- name: bench_empty
-- Take all rows out of the tables that a load fills; partitions, chunks and instruments stay.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent IN ('option_contracts'::regclass, 'market_snapshots'::regclass)
    LOOP
        EXECUTE format('TRUNCATE %s', part);
    END LOOP;
    TRUNCATE ledger, coverage, gaps;
END
$$

-- name: bench_checkpoint
-- What one turn has written shall not be carried to the disk in the next one.
CHECKPOINT

-- name: bench_server_path
-- Where the server keeps its files, so that it can read there what it wrote.
SELECT current_setting('data_directory') AS directory

-- name: bench_write_file
-- Have the server write a file with the rows of option_contracts, in the order in which they lie.
COPY (
    SELECT
        ts, volume, instrument_id, bid_size, ask_size, open_interest, previous_open_interest,
        last, bid, ask, average, previous_close, iv, delta, gamma, theta, vega, rho, iv_fit,
        iv_provider, delta_provider, gamma_provider, theta_provider, vega_provider,
        rev, iv_status, price_source, greeks_source
    FROM option_contracts
) TO %(path)s (FORMAT binary)

-- name: bench_copy_file
-- Load such a file: the same rows, with no client in between.
COPY option_contracts (
    ts, volume, instrument_id, bid_size, ask_size, open_interest, previous_open_interest,
    last, bid, ask, average, previous_close, iv, delta, gamma, theta, vega, rho, iv_fit,
    iv_provider, delta_provider, gamma_provider, theta_provider, vega_provider,
    rev, iv_status, price_source, greeks_source
) FROM %(path)s (FORMAT binary)

-- name: bench_copy_out
-- Every row as the server sends it, in whatever order it finds them.
COPY (SELECT * FROM option_contracts) TO STDOUT (FORMAT binary)

-- name: bench_insert
-- Insert one row, the usual way.
INSERT INTO option_contracts (
    ts, volume, instrument_id, bid_size, ask_size, open_interest, previous_open_interest,
    last, bid, ask, average, previous_close, iv, delta, gamma, theta, vega, rho, iv_fit,
    iv_provider, delta_provider, gamma_provider, theta_provider, vega_provider,
    rev, iv_status, price_source, greeks_source
) VALUES (
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
)

-- name: bench_column_types
-- The types of the columns of option_contracts.
SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type
FROM pg_attribute
WHERE attrelid = 'option_contracts'::regclass AND attnum > 0 AND NOT attisdropped

-- name: bench_sizes
-- Rows of option_contracts, the bytes of the pages that hold them, and those of the indexes. A
-- server adds pages ahead, so those of a table's file say little of a small one.
SELECT
    coalesce(sum(parts.rows), 0)::bigint AS rows,
    (coalesce(sum(parts.pages), 0) * current_setting('block_size')::bigint)::bigint AS heap_bytes,
    coalesce(sum(pg_indexes_size(parts.part)), 0)::bigint AS index_bytes
FROM (
    SELECT tableoid AS part, count(*) AS rows, (max(ctid)::text::point)[0]::bigint + 1 AS pages
    FROM option_contracts
    GROUP BY tableoid
) AS parts

-- name: bench_count
-- What a load has left: rows, chains, lines of the ledger, and what coverage counts.
SELECT
    (SELECT count(*) FROM option_contracts) AS rows,
    (SELECT count(*) FROM market_snapshots) AS snapshots,
    (SELECT count(*) FROM ledger) AS lines,
    (SELECT coalesce(sum(present), 0) FROM coverage) AS present

-- name: bench_use
-- Ask, load and make tables in a schema before those of `public`.
SELECT set_config('search_path', %(schema)s || ', public', false)

-- name: bench_make_candidate
-- A table like option_contracts without a key or index, in the schema that is in use.
DO $$
DECLARE
    name text := split_part(current_setting('search_path'), ',', 1);
BEGIN
    EXECUTE format('CREATE SCHEMA %I', name);
    EXECUTE format(
        'CREATE TABLE %I.option_contracts (LIKE public.option_contracts INCLUDING CONSTRAINTS)', name
    );
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            format('%I.option_contracts', name)::regclass, by_range('ts', INTERVAL '1 day'),
            create_default_indexes => false
        );
    END IF;
END
$$

-- name: bench_key_by_instant
-- The key as it is shipped.
ALTER TABLE option_contracts ADD PRIMARY KEY (ts, instrument_id, rev)

-- name: bench_key_by_contract
-- The key with the contract first.
ALTER TABLE option_contracts ADD PRIMARY KEY (instrument_id, ts, rev)

-- name: bench_index_by_contract
-- A second, narrow index for reads of one contract.
CREATE INDEX ON option_contracts (instrument_id, ts)

-- name: bench_index_of_blocks
-- Which blocks have which instants.
CREATE INDEX ON option_contracts USING brin (ts) WITH (pages_per_range = 16)

-- name: bench_analyze
-- What autovacuum does by itself.
VACUUM (ANALYZE) option_contracts, market_snapshots, instruments

-- name: bench_index_bytes
-- Bytes of the indexes of the table in use, partitions and chunks included.
SELECT coalesce(sum(pg_indexes_size(part)), 0)::bigint AS index_bytes
FROM (
    SELECT 'option_contracts'::regclass AS part
    UNION ALL
    SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'option_contracts'::regclass
) AS parts

-- name: bench_legs_in_range
-- Legs of a contract in [start, end), asked by the contract and not by the chain's instants.
SELECT
    (extract(epoch FROM leg.ts) * 1000000)::bigint * 1000 AS ts_ingest,
    leg.instrument_id, leg.rev, {leg_values}
FROM option_contracts AS leg
WHERE
    leg.instrument_id = ANY(%(instrument_ids)s::integer[])
    AND leg.ts >= %(start)s AND leg.ts < %(end)s
ORDER BY leg.ts
LIMIT %(limit)s

-- name: bench_to_columns
-- Turn what is stored into columns, as the policy does with closed days.
SELECT count(compress_chunk(chunk)) AS chunks FROM show_chunks('option_contracts') AS chunk

-- name: bench_column_bytes
-- Bytes of what has been turned into columns, before and after, indexes included.
SELECT before_compression_total_bytes AS row_bytes, after_compression_total_bytes AS column_bytes
FROM hypertable_compression_stats('option_contracts')

-- name: bench_empty_hypertable
-- Take all legs out, columns and all.
TRUNCATE option_contracts
