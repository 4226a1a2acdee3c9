-- How much of what should have been stored is there, and why the rest is not.

CREATE TABLE coverage (
    minute timestamptz NOT NULL,
    symbol text NOT NULL,
    provider text NOT NULL,
    expected integer NOT NULL DEFAULT 0,
    present integer NOT NULL DEFAULT 0,
    missed_upstream integer NOT NULL DEFAULT 0,
    missed_us integer NOT NULL DEFAULT 0,
    PRIMARY KEY (symbol, minute, provider),
    CONSTRAINT coverage_minute CHECK (minute = date_trunc('minute', minute, 'UTC')),
    CONSTRAINT coverage_counts CHECK (present >= 0 AND missed_upstream >= 0 AND missed_us >= 0),
    CONSTRAINT coverage_expected CHECK (expected >= missed_upstream + missed_us)
);

-- Minutes come in about their order: a few ranges of blocks say where a day is, at next to no cost.
CREATE INDEX coverage_by_minute ON coverage USING brin (minute) WITH (pages_per_range = 16);

CREATE TABLE gaps (
    starts timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    missed integer NOT NULL,
    symbol text NOT NULL,
    provider text NOT NULL,
    cause text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (symbol, starts, provider),
    CONSTRAINT gaps_span CHECK (starts < ends),
    CONSTRAINT gaps_missed CHECK (missed > 0),
    CONSTRAINT gaps_cause CHECK (cause IN ('upstream', 'us'))
);

ALTER TABLE ledger
ADD COLUMN rejected smallint NOT NULL DEFAULT 0,
ADD CONSTRAINT ledger_counts CHECK (n >= 0 AND rejected >= 0);

COMMENT ON TABLE coverage IS
'Snapshots of a chain by the minute of their receipt: how many were to come, and how many are here';
COMMENT ON COLUMN coverage.expected IS
'polls that were due in the minute, as their worker reported them; 0 where it reported nothing';
COMMENT ON COLUMN coverage.present IS
'snapshots stored, all calculation revisions of one as one; counted in the transaction of their rows';
COMMENT ON COLUMN coverage.missed_upstream IS
'of those expected, polls that brought no snapshot because the provider gave none; see gaps';
COMMENT ON COLUMN coverage.missed_us IS
'of those expected, polls that brought no snapshot because of us; see gaps';
COMMENT ON TABLE gaps IS
'Time [starts, ends) in which polls of a chain were due and no snapshot came; a closed market has none';
COMMENT ON COLUMN gaps.cause IS
'upstream: the provider did not answer with data; us: nothing asked, or what asked was refused for its account';
COMMENT ON COLUMN ledger.rejected IS 'legs set aside as dead letters, because Postgres cannot hold them';
