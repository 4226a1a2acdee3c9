-- requires: community
-- With TimescaleDB's own licence the server keeps candles itself, as continuous aggregates under
-- the names of the rollup tables (0019). What has been rolled goes, and is made anew there.

DROP TRIGGER ledger_added ON ledger;
DROP TRIGGER ledger_changed ON ledger;
DROP FUNCTION note_candle_minutes();
DROP FUNCTION roll_minute(timestamptz);
DROP FUNCTION roll_level(text, text, integer, timestamptz, timestamptz);
DROP FUNCTION make_candle_day(date);
DROP TABLE candle_minutes, candle_watermark;

-- A statement drops one hypertable.
DROP TABLE contract_candles_1m;
DROP TABLE contract_candles_5m;
DROP TABLE contract_candles_1h;
DROP TABLE contract_candles_1d;
DROP TABLE underlying_candles_1m;
DROP TABLE underlying_candles_5m;
DROP TABLE underlying_candles_1h;
DROP TABLE underlying_candles_1d;

CREATE OR REPLACE FUNCTION candles_until(level text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
SELECT
    min(
        _timescaledb_functions.to_timestamp(
            _timescaledb_functions.cagg_watermark(mat_hypertable_id)
        )
    )
FROM _timescaledb_catalog.continuous_agg
WHERE user_view_name IN ('contract_candles_' || level, 'underlying_candles_' || level)
$$;

-- What first() and last() order by: of one instant the higher revision comes later.
CREATE FUNCTION revision_order(instant timestamptz, rev integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT (instant - TIMESTAMPTZ '2000-01-01 00:00:00Z') + rev * INTERVAL '1 microsecond'
$$;

-- The policies of 0019 do it.
CREATE OR REPLACE FUNCTION roll_candles(upto timestamptz, most integer) RETURNS integer
LANGUAGE sql AS 'SELECT 0';

-- A bucket that is not over yet stays out: the watermark would pass rows that are still to come.
CREATE OR REPLACE PROCEDURE refresh_candles(first timestamptz, until timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    step record;
    kind text;
BEGIN
    FOR step IN
        SELECT level, candle_start(first, seconds) AS starts,
            least(
                candle_start(
                    until + make_interval(secs => seconds) - INTERVAL '1 microsecond', seconds
                ),
                candle_start(now(), seconds)
            ) AS ends
        FROM (VALUES (1, '1m', 60), (2, '5m', 300), (3, '1h', 3600), (4, '1d', 86400))
            AS levels (place, level, seconds)
        ORDER BY place
    LOOP
        IF step.starts < step.ends THEN
            FOREACH kind IN ARRAY ARRAY['contract_candles_', 'underlying_candles_'] LOOP
                CALL refresh_continuous_aggregate(
                    (kind || step.level)::regclass, step.starts, step.ends
                );
            END LOOP;
        END IF;
    END LOOP;
END
$$;
