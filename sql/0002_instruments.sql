-- Contracts as their provider defines them, one row for each definition and the time it held.

CREATE TABLE instruments (
    instrument_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    underlying text NOT NULL,
    expiry date NOT NULL,
    strike double precision NOT NULL,
    kind text NOT NULL,
    provider text NOT NULL,
    security_id bigint,
    lot integer,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz NOT NULL DEFAULT 'infinity',
    CONSTRAINT instruments_definition UNIQUE (symbol, provider, valid_from),
    CONSTRAINT instruments_strike CHECK (strike > 0 AND strike < 'Infinity'),
    CONSTRAINT instruments_kind CHECK (kind IN ('call', 'put')),
    CONSTRAINT instruments_lot CHECK (lot > 0),
    CONSTRAINT instruments_validity CHECK (valid_from < valid_to)
);

CREATE UNIQUE INDEX instruments_current ON instruments (symbol, provider)
WHERE valid_to = 'infinity';

CREATE INDEX instruments_chain ON instruments (underlying, expiry);

COMMENT ON TABLE instruments IS
'Contracts, one row for each definition (lot, provider id) and the time [valid_from, valid_to) in which it held';
COMMENT ON COLUMN instruments.security_id IS 'the provider''s id of the contract; NULL: not given';
COMMENT ON COLUMN instruments.lot IS 'units in a lot; NULL: not known';
