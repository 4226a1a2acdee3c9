"""Closed exchange days as Parquet files, out of Postgres and back, each row once."""
