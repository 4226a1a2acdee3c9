-- requires: timescale
-- The extension that keeps the two big tables as hypertables; 0005 makes them so.

CREATE EXTENSION IF NOT EXISTS timescaledb;
