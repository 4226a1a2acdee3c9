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
-- Rows of option_contracts, and the bytes of their heap and of its indexes.
SELECT
    (SELECT count(*) FROM option_contracts) AS rows,
    coalesce(sum(pg_relation_size(part.inhrelid)), 0)::bigint AS heap_bytes,
    coalesce(sum(pg_indexes_size(part.inhrelid)), 0)::bigint AS index_bytes
FROM pg_inherits AS part
WHERE part.inhparent = 'option_contracts'::regclass

-- name: bench_count
-- What a load has left: rows, chains, lines of the ledger, and what coverage counts.
SELECT
    (SELECT count(*) FROM option_contracts) AS rows,
    (SELECT count(*) FROM market_snapshots) AS snapshots,
    (SELECT count(*) FROM ledger) AS lines,
    (SELECT coalesce(sum(present), 0) FROM coverage) AS present
