-- What is stored of every snapshot: one row of the chain, one row a leg, one line in the ledger.
-- Columns stand by falling width, so that no byte goes to alignment. NULL is "not available".
-- rev, the calculation revision, is in the keys, so that a day can be calculated again beside
-- what was stored first.

CREATE TABLE market_snapshots (
    ts timestamptz NOT NULL,
    ts_event timestamptz,
    ts_enrich timestamptz,
    seq bigint NOT NULL,
    call_open_interest bigint,
    put_open_interest bigint,
    spot double precision,
    forward double precision,
    discount double precision,
    years double precision NOT NULL,
    rate double precision NOT NULL,
    forward_residual double precision,
    atm_strike double precision,
    atm_iv double precision,
    put_call_ratio_open_interest double precision,
    put_call_ratio_volume double precision,
    max_pain double precision,
    expiry date NOT NULL,
    lot integer,
    forward_pairs integer NOT NULL,
    n integer NOT NULL,
    rev smallint NOT NULL,
    underlying text NOT NULL,
    provider text NOT NULL,
    epoch text NOT NULL,
    model text NOT NULL,
    forward_source text NOT NULL,
    PRIMARY KEY (underlying, expiry, ts, provider, rev),
    CONSTRAINT market_snapshots_prices CHECK (spot > 0 AND forward > 0 AND discount > 0),
    CONSTRAINT market_snapshots_counts CHECK (n >= 0 AND forward_pairs >= 0 AND rev > 0)
);

CREATE INDEX market_snapshots_underlying ON market_snapshots (underlying, ts);

CREATE TABLE option_contracts (
    ts timestamptz NOT NULL,
    volume bigint,
    instrument_id integer NOT NULL,
    last real,
    bid real,
    ask real,
    average real,
    previous_close real,
    bid_size integer,
    ask_size integer,
    open_interest integer,
    previous_open_interest integer,
    iv real,
    delta real,
    gamma real,
    theta real,
    vega real,
    rho real,
    iv_fit real,
    iv_provider real,
    delta_provider real,
    gamma_provider real,
    theta_provider real,
    vega_provider real,
    rev smallint NOT NULL,
    iv_status smallint NOT NULL,
    price_source smallint NOT NULL,
    greeks_source smallint NOT NULL,
    PRIMARY KEY (ts, instrument_id, rev),
    CONSTRAINT option_contracts_prices CHECK (
        last > 0 AND bid > 0 AND ask > 0 AND average > 0 AND previous_close > 0
    ),
    CONSTRAINT option_contracts_quantities CHECK (
        volume >= 0 AND bid_size >= 0 AND ask_size >= 0
        AND open_interest >= 0 AND previous_open_interest >= 0
    ),
    CONSTRAINT option_contracts_iv CHECK (iv > 0 AND iv_fit > 0 AND iv_provider > 0),
    CONSTRAINT option_contracts_codes CHECK (
        iv_status BETWEEN 0 AND 9 AND price_source BETWEEN 0 AND 2
        AND greeks_source BETWEEN 0 AND 2 AND rev > 0
    )
);

CREATE TABLE ledger (
    id text PRIMARY KEY,
    stream_id text NOT NULL,
    ts timestamptz NOT NULL,
    n integer NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE market_snapshots IS
'One row a chain snapshot: what holds for all its legs, and where in the enriched stream it stood';
COMMENT ON COLUMN market_snapshots.ts IS 'ts_ingest: when the provider''s answer was received';
COMMENT ON COLUMN market_snapshots.ts_event IS 'the venue''s instant; NULL: the provider gives none';
COMMENT ON TABLE option_contracts IS
'One row a leg of every chain snapshot; prices in rupees, quantities in units, iv decimal per year';
COMMENT ON COLUMN option_contracts.ts IS 'ts_ingest of the snapshot, the same in market_snapshots';
COMMENT ON TABLE ledger IS
'Enriched entries whose rows are committed; a line is written in the transaction of its rows';
COMMENT ON COLUMN ledger.id IS 'message id of the entry; the same entry made again has the same';
COMMENT ON COLUMN ledger.n IS 'rows in option_contracts';
