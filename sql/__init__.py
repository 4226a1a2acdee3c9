"""Migrations and named queries, as files, for `pipeline.migrations` and `pipeline.queries`."""
