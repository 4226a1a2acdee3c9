-- requires: community
-- With TimescaleDB's own licence closed days become columns, a segment a contract or a chain, which
-- is how they are asked; the orders hold the keys, so that a late row is still known as double.
-- Rows go in as rows: a unique key turns direct compression off, and chains arrive chain by chain.

ALTER TABLE option_contracts SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'instrument_id',
    timescaledb.orderby = 'ts, rev'
);

ALTER TABLE market_snapshots SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'underlying, expiry',
    timescaledb.orderby = 'ts, provider, rev'
);

ALTER TABLE ticks SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'instrument_id',
    timescaledb.orderby = 'ts, place'
);

CALL add_columnstore_policy('option_contracts', after => INTERVAL '2 days');
CALL add_columnstore_policy('market_snapshots', after => INTERVAL '2 days');
CALL add_columnstore_policy('ticks', after => INTERVAL '2 days');

-- Has the server drop days by itself, also while no storage worker runs; 0 keeps all. Nothing is
-- touched where it is told so already. Its policies go by the server's clock: for an instance whose
-- clock is another the storage worker drops days alone.
CREATE OR REPLACE FUNCTION set_retention(days integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    big text;
    wanted interval := make_interval(days => days);
    present interval;
BEGIN
    FOREACH big IN ARRAY ARRAY['market_snapshots', 'option_contracts', 'ticks'] LOOP
        SELECT (config ->> 'drop_after')::interval INTO present
        FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND hypertable_name = big
            AND hypertable_schema = current_schema();
        IF present IS NOT NULL AND (days = 0 OR present <> wanted) THEN
            PERFORM remove_retention_policy(big::regclass);
        END IF;
        IF days > 0 AND present IS DISTINCT FROM wanted THEN
            PERFORM add_retention_policy(big::regclass, wanted);
        END IF;
    END LOOP;
END
$$;
