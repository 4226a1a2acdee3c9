"""Polls the provider within its budget and appends every answer to the raw stream."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from pipeline import schemas
from pipeline.dhan import underlyings_named
from pipeline.errors import AuthenticationFailed
from pipeline.runtime import Context, run
from pipeline.streams import open_outbox
from workers.ingest.dhan_rest import DhanRest
from workers.ingest.poller import Poller
from workers.ingest.reporting import Reporter


async def ingest(context: Context) -> None:
    """Poll every configured underlying until stopping."""
    settings = context.settings
    chosen = underlyings_named(settings.underlyings, "STOCKIFY_UNDERLYINGS")
    await schemas.announce(context, schemas.RAW_TYPES)
    rest = DhanRest(settings.dhan_base_url, settings.dhan_client_id, lambda: _token(context))
    try:
        async with open_outbox(context, _raw_stream(context)) as outbox:
            reporter = Reporter(context, outbox)
            poller = Poller(context, rest, outbox, reporter)
            context.telemetry.set_state("ready")
            async with asyncio.TaskGroup() as group:
                group.create_task(reporter.work())
                for underlying in chosen:
                    group.create_task(poller.follow(underlying))
            await reporter.finish()
    finally:
        await rest.close()


def _raw_stream(context: Context) -> Callable[[str, str], str]:
    """Where the entry of a symbol belongs, whatever stream it was put for."""

    def route(_stream: str, symbol: str) -> str:
        return context.topics.raw(context.topics.shard_of(symbol.partition("-")[0]))

    return route


def _token(context: Context) -> str:
    """The access token; from its file when there is one, since the provider replaces it daily."""
    path = context.settings.dhan_token_file
    if not path:
        return context.settings.dhan_access_token
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise AuthenticationFailed(f"STOCKIFY_DHAN_TOKEN_FILE: {error}") from error


def main() -> None:
    """Run the worker."""
    run("ingest", ingest)


if __name__ == "__main__":
    main()
