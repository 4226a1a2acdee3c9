"""The storage worker: the enriched stream into Postgres, exactly once."""
