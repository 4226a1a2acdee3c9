-- Candles of contracts and of underlyings, in four levels, rolled up from what is stored. Rows of
-- the ledger note, in the transaction of what they stand for, which minutes have changed; whoever
-- calls roll_candles makes these minutes anew and the levels above them.
-- A candle is named by the start of its half-open bucket.

-- The start of the bucket that an instant lies in. From a day on buckets are counted from Monday
-- 00:00 IST. Below, from 09:15 IST: through the nights where the length divides a day, else anew in
-- each exchange day, whose first bucket then begins at 00:00 IST.
CREATE FUNCTION candle_start(instant timestamptz, seconds integer) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE
    WHEN seconds >= 86400
        THEN date_bin(make_interval(secs => seconds), instant, TIMESTAMPTZ '2000-01-02 18:30:00Z')
    WHEN 86400 % seconds = 0
        THEN date_bin(make_interval(secs => seconds), instant, TIMESTAMPTZ '2000-01-03 03:45:00Z')
    ELSE greatest(
        date_bin('1 day', instant, TIMESTAMPTZ '2000-01-02 18:30:00Z'),
        date_bin(
            make_interval(secs => seconds),
            instant,
            timezone(
                'UTC',
                timezone('UTC', date_bin('1 day', instant, TIMESTAMPTZ '2000-01-02 18:30:00Z'))
                + INTERVAL '9 hours 15 minutes'
            )
        )
    )
END
$$;

CREATE TABLE contract_candles_1m (
    starts timestamptz NOT NULL,
    closed_at timestamptz NOT NULL,
    volume_total bigint,
    n bigint NOT NULL,
    instrument_id integer NOT NULL,
    open real,
    high real,
    low real,
    close real,
    open_interest integer,
    iv real,
    bid real,
    ask real,
    PRIMARY KEY (starts, instrument_id)
);

CREATE INDEX contract_candles_1m_contract ON contract_candles_1m (instrument_id, starts);

CREATE TABLE underlying_candles_1m (
    starts timestamptz NOT NULL,
    closed_at timestamptz NOT NULL,
    n bigint NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    forward double precision,
    atm_iv double precision,
    put_call_ratio_open_interest double precision,
    put_call_ratio_volume double precision,
    max_pain double precision,
    skew_25_delta double precision,
    gamma_exposure double precision,
    expected_move double precision,
    call_open_interest bigint,
    put_open_interest bigint,
    expiry date NOT NULL,
    underlying text NOT NULL,
    PRIMARY KEY (starts, underlying, expiry)
);

CREATE INDEX underlying_candles_1m_chain ON underlying_candles_1m (underlying, expiry, starts);

CREATE TABLE contract_candles_5m (LIKE contract_candles_1m INCLUDING ALL);
CREATE TABLE contract_candles_1h (LIKE contract_candles_1m INCLUDING ALL);
CREATE TABLE contract_candles_1d (LIKE contract_candles_1m INCLUDING ALL);
CREATE TABLE underlying_candles_5m (LIKE underlying_candles_1m INCLUDING ALL);
CREATE TABLE underlying_candles_1h (LIKE underlying_candles_1m INCLUDING ALL);
CREATE TABLE underlying_candles_1d (LIKE underlying_candles_1m INCLUDING ALL);

COMMENT ON TABLE contract_candles_1m IS
'Minutes of contracts: open, high, low and close of last; what else there is holds at the close';
COMMENT ON COLUMN contract_candles_1m.volume_total IS
'traded in the session until the close of the candle; less that of the candle before is its volume';
COMMENT ON COLUMN contract_candles_1m.closed_at IS 'when its last snapshot was received';
COMMENT ON COLUMN contract_candles_1m.n IS 'its snapshots';
COMMENT ON TABLE underlying_candles_1m IS
'Minutes of underlyings as a chain saw them: open, high, low and close of spot; the rest at close';

-- Minutes of which rows were committed that no candle knows yet, the newest among them.
CREATE TABLE candle_minutes (minute timestamptz NOT NULL);

-- Up to where minutes have been rolled; what comes below it later is noted and rolled again.
CREATE TABLE candle_watermark (
    until timestamptz NOT NULL,
    is_only boolean PRIMARY KEY DEFAULT true,
    CONSTRAINT candle_watermark_only CHECK (is_only)
);

INSERT INTO candle_watermark (until) VALUES ('-infinity');

INSERT INTO candle_minutes (minute)
SELECT DISTINCT date_bin('1 minute', ts, TIMESTAMPTZ '2000-01-01 00:00:00Z') FROM market_snapshots;

CREATE FUNCTION note_candle_minutes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candle_minutes (minute)
    SELECT DISTINCT date_bin('1 minute', line.ts, TIMESTAMPTZ '2000-01-01 00:00:00Z')
    FROM lines AS line
    WHERE line.n > 0 OR line.rejected > 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_added AFTER INSERT ON ledger
REFERENCING NEW TABLE AS lines FOR EACH STATEMENT EXECUTE FUNCTION note_candle_minutes();

CREATE TRIGGER ledger_changed AFTER UPDATE ON ledger
REFERENCING NEW TABLE AS lines FOR EACH STATEMENT EXECUTE FUNCTION note_candle_minutes();

-- Up to where a level is rolled: every bucket that ends there or before.
CREATE FUNCTION candles_until(level text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
SELECT candle_start(
    until,
    CASE level WHEN '1m' THEN 60 WHEN '5m' THEN 300 WHEN '1h' THEN 3600 WHEN '1d' THEN 86400 END
)
FROM candle_watermark
$$;

-- Makes sure that candles of a UTC day have a place.
CREATE FUNCTION make_candle_day(day date) RETURNS void LANGUAGE sql AS '';

-- Makes the candles of one minute from what is stored of it; the highest revision speaks.
CREATE FUNCTION roll_minute(wanted timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ends CONSTANT timestamptz := wanted + INTERVAL '1 minute';
BEGIN
    PERFORM make_candle_day((wanted AT TIME ZONE 'UTC')::date);
    DELETE FROM contract_candles_1m WHERE starts = wanted;
    INSERT INTO contract_candles_1m (
        starts, closed_at, volume_total, n, instrument_id,
        open, high, low, close, open_interest, iv, bid, ask
    )
    SELECT
        wanted, max(ts),
        (array_agg(volume ORDER BY ts DESC) FILTER (WHERE volume IS NOT NULL))[1],
        count(*), instrument_id,
        (array_agg(last ORDER BY ts DESC) FILTER (WHERE last IS NOT NULL))[count(last)::integer],
        max(last), min(last),
        (array_agg(last ORDER BY ts DESC) FILTER (WHERE last IS NOT NULL))[1],
        (array_agg(open_interest ORDER BY ts DESC))[1], (array_agg(iv ORDER BY ts DESC))[1],
        (array_agg(bid ORDER BY ts DESC))[1], (array_agg(ask ORDER BY ts DESC))[1]
    FROM (
        SELECT DISTINCT ON (ts, instrument_id)
            ts, instrument_id, volume, last, open_interest, iv, bid, ask
        FROM option_contracts
        WHERE ts >= wanted AND ts < ends
        ORDER BY ts DESC, instrument_id DESC, rev DESC
    ) AS leg
    GROUP BY instrument_id;
    DELETE FROM underlying_candles_1m WHERE starts = wanted;
    INSERT INTO underlying_candles_1m (
        starts, closed_at, n, open, high, low, close, forward, atm_iv,
        put_call_ratio_open_interest, put_call_ratio_volume, max_pain, skew_25_delta,
        gamma_exposure, expected_move, call_open_interest, put_open_interest, expiry, underlying
    )
    SELECT
        wanted, max(ts), count(*),
        (array_agg(spot ORDER BY ts DESC) FILTER (WHERE spot IS NOT NULL))[count(spot)::integer],
        max(spot), min(spot),
        (array_agg(spot ORDER BY ts DESC) FILTER (WHERE spot IS NOT NULL))[1],
        (array_agg(forward ORDER BY ts DESC))[1], (array_agg(atm_iv ORDER BY ts DESC))[1],
        (array_agg(put_call_ratio_open_interest ORDER BY ts DESC))[1],
        (array_agg(put_call_ratio_volume ORDER BY ts DESC))[1],
        (array_agg(max_pain ORDER BY ts DESC))[1], (array_agg(skew_25_delta ORDER BY ts DESC))[1],
        (array_agg(gamma_exposure ORDER BY ts DESC))[1],
        (array_agg(expected_move ORDER BY ts DESC))[1],
        (array_agg(call_open_interest ORDER BY ts DESC))[1],
        (array_agg(put_open_interest ORDER BY ts DESC))[1], expiry, underlying
    FROM (
        SELECT DISTINCT ON (underlying, expiry, ts) *
        FROM market_snapshots
        WHERE ts >= wanted AND ts < ends
        ORDER BY underlying, expiry, ts, provider DESC, rev DESC
    ) AS snap
    GROUP BY underlying, expiry;
END
$$;

-- Makes the candles of a level that start in [first, until) from those of a level below.
CREATE FUNCTION roll_level(
    level text, below text, seconds integer, first timestamptz, until timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'DELETE FROM contract_candles_%s WHERE starts >= $1 AND starts < $2', level
    ) USING first, until;
    EXECUTE format(
        'INSERT INTO contract_candles_%s (
            starts, closed_at, volume_total, n, instrument_id,
            open, high, low, close, open_interest, iv, bid, ask
        )
        SELECT
            candle_start(starts, $3), max(closed_at),
            (array_agg(volume_total ORDER BY starts DESC)
                FILTER (WHERE volume_total IS NOT NULL))[1],
            sum(n)::bigint, instrument_id,
            (array_agg(open ORDER BY starts DESC)
                FILTER (WHERE open IS NOT NULL))[count(open)::integer],
            max(high), min(low),
            (array_agg(close ORDER BY starts DESC) FILTER (WHERE close IS NOT NULL))[1],
            (array_agg(open_interest ORDER BY starts DESC))[1],
            (array_agg(iv ORDER BY starts DESC))[1],
            (array_agg(bid ORDER BY starts DESC))[1], (array_agg(ask ORDER BY starts DESC))[1]
        FROM contract_candles_%s
        WHERE starts >= $1 AND starts < $2
        GROUP BY candle_start(starts, $3), instrument_id',
        level, below
    ) USING first, until, seconds;
    EXECUTE format(
        'DELETE FROM underlying_candles_%s WHERE starts >= $1 AND starts < $2', level
    ) USING first, until;
    EXECUTE format(
        'INSERT INTO underlying_candles_%s (
            starts, closed_at, n, open, high, low, close, forward, atm_iv,
            put_call_ratio_open_interest, put_call_ratio_volume, max_pain, skew_25_delta,
            gamma_exposure, expected_move, call_open_interest, put_open_interest, expiry, underlying
        )
        SELECT
            candle_start(starts, $3), max(closed_at), sum(n)::bigint,
            (array_agg(open ORDER BY starts DESC)
                FILTER (WHERE open IS NOT NULL))[count(open)::integer],
            max(high), min(low),
            (array_agg(close ORDER BY starts DESC) FILTER (WHERE close IS NOT NULL))[1],
            (array_agg(forward ORDER BY starts DESC))[1],
            (array_agg(atm_iv ORDER BY starts DESC))[1],
            (array_agg(put_call_ratio_open_interest ORDER BY starts DESC))[1],
            (array_agg(put_call_ratio_volume ORDER BY starts DESC))[1],
            (array_agg(max_pain ORDER BY starts DESC))[1],
            (array_agg(skew_25_delta ORDER BY starts DESC))[1],
            (array_agg(gamma_exposure ORDER BY starts DESC))[1],
            (array_agg(expected_move ORDER BY starts DESC))[1],
            (array_agg(call_open_interest ORDER BY starts DESC))[1],
            (array_agg(put_open_interest ORDER BY starts DESC))[1], expiry, underlying
        FROM underlying_candles_%s
        WHERE starts >= $1 AND starts < $2
        GROUP BY candle_start(starts, $3), underlying, expiry',
        level, below
    ) USING first, until, seconds;
END
$$;

-- Rolls at most so many noted minutes that are over at an instant, those behind the watermark
-- first, oldest first, and whatever buckets above them that makes whole or changes. Gives how many
-- minutes it rolled. All of it is one transaction; sessions wait for one another.
CREATE FUNCTION roll_candles(upto timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    was timestamptz;
    closed timestamptz;
    reached timestamptz;
    minutes timestamptz[];
    one timestamptz;
    step record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('stockify.candles', 0));
    SELECT until INTO was FROM candle_watermark;
    closed := greatest(was, date_bin('1 minute', upto, TIMESTAMPTZ '2000-01-01 00:00:00Z'));
    minutes := ARRAY(
        SELECT minute FROM candle_minutes WHERE minute < closed
        GROUP BY minute ORDER BY minute < was, minute LIMIT most
    );
    DELETE FROM candle_minutes WHERE minute = ANY(minutes);
    FOREACH one IN ARRAY minutes LOOP
        PERFORM roll_minute(one);
    END LOOP;
    SELECT least(closed, min(minute)) INTO reached FROM candle_minutes WHERE minute >= was;
    UPDATE candle_watermark SET until = reached WHERE until < reached;
    FOR step IN
        SELECT level, below, seconds, candle_start(was, seconds) AS from_start,
            candle_start(reached, seconds) AS to_start
        FROM (VALUES ('5m', '1m', 300), ('1h', '5m', 3600), ('1d', '5m', 86400))
            AS steps (level, below, seconds)
    LOOP
        FOR one IN
            SELECT DISTINCT candle_start(minute, step.seconds)
            FROM unnest(minutes) AS minute WHERE minute < step.from_start
        LOOP
            PERFORM roll_level(
                step.level, step.below, step.seconds, one, one + make_interval(secs => step.seconds)
            );
        END LOOP;
        IF step.from_start < step.to_start THEN
            PERFORM roll_level(
                step.level, step.below, step.seconds, step.from_start, step.to_start
            );
        END IF;
    END LOOP;
    RETURN cardinality(minutes);
END
$$;

-- Makes every candle of [first, until) anew, a few minutes a transaction; to be called outside one.
CREATE PROCEDURE refresh_candles(first timestamptz, until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    since CONSTANT timestamptz := candle_start(first, 60);
    ends CONSTANT timestamptz := candle_start(until + INTERVAL '59.999999 seconds', 60);
BEGIN
    INSERT INTO candle_minutes (minute)
    SELECT date_bin('1 minute', ts, TIMESTAMPTZ '2000-01-01 00:00:00Z')
    FROM market_snapshots WHERE ts >= since AND ts < ends
    UNION
    SELECT starts FROM underlying_candles_1m WHERE starts >= since AND starts < ends;
    COMMIT;
    WHILE roll_candles(ends, 5) > 0 LOOP
        COMMIT;
    END LOOP;
    COMMIT;
END
$$;
