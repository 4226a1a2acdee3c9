-- The audit asks the ledger by time. Lines are added in about that order, so that a few ranges of
-- blocks tell where to look, at next to no cost for who adds them.

CREATE INDEX ledger_ts ON ledger USING brin (ts) WITH (pages_per_range = 16);
