"""Migrations and named queries, as files; `pipeline.database` reads them."""
