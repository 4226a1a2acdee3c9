-- Every update of a contract from a live feed. No worker writes it yet: the feed's worker will, and
-- what it is to keep, and how it is read, is settled here. Columns stand by falling width; NULL is
-- "not available".

CREATE TABLE ticks (
    ts timestamptz NOT NULL,
    ts_event timestamptz,
    volume bigint,
    instrument_id integer NOT NULL,
    last real,
    bid real,
    ask real,
    last_size integer,
    bid_size integer,
    ask_size integer,
    open_interest integer,
    place smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (instrument_id, ts, place),
    CONSTRAINT ticks_prices CHECK (last > 0 AND bid > 0 AND ask > 0),
    CONSTRAINT ticks_quantities CHECK (
        volume >= 0 AND last_size >= 0 AND bid_size >= 0 AND ask_size >= 0 AND open_interest >= 0
    ),
    CONSTRAINT ticks_place CHECK (place >= 0)
);

COMMENT ON TABLE ticks IS
'One row an update of a contract from a live feed; rupees and units. No worker writes it yet';
COMMENT ON COLUMN ticks.ts IS 'ts_ingest: when the update was received';
COMMENT ON COLUMN ticks.ts_event IS 'the venue''s instant; NULL: the feed gives none';
COMMENT ON COLUMN ticks.volume IS 'traded in the session until then';
COMMENT ON COLUMN ticks.place IS 'which of the contract''s updates of that instant it is, from 0';
