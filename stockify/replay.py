"""`stockify replay`: recorded bodies into the raw stream with the time at which they were recorded.

From there they go the way of every other body: enriched, stored, served. Replaying a file twice
stores it once.
"""

import asyncio
import sys
from datetime import date, datetime
from pathlib import Path

import click

from pipeline.attached import attached_settings
from pipeline.bodies import raw_entry
from pipeline.clock import to_rfc3339
from pipeline.config import Settings
from pipeline.entries import Appended, NewEntry
from pipeline.errors import BusError, ConfigError, OutcomeUnknown
from pipeline.streams import Producer
from pipeline.topics import Topics
from stockify import recordings
from stockify.recordings import Recording

ATTEMPTS = 3


@click.command("replay")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--index", type=click.Path(exists=True, path_type=Path), help="recordings index")
@click.option("--underlying", help="what the file is of, where no index says it")
@click.option("--expiry", type=click.DateTime(["%Y-%m-%d"]), help="the chain's expiry")
@click.option("--at", help="when it was received, ISO; without an offset IST")
def command(
    paths: tuple[Path, ...],
    index: Path | None,
    underlying: str | None,
    expiry: datetime | None,
    at: str | None,
) -> None:
    """Feed recorded option chains into a running instance."""
    try:
        chosen = _recordings(list(paths), index, underlying, expiry, at)
        places = asyncio.run(_append(attached_settings(), chosen))
    except (ConfigError, BusError) as error:
        sys.exit(f"stockify replay: {error}")
    for recording, place in zip(chosen, places, strict=True):
        click.echo(
            f"{recording.path.name}: {recording.context.underlying} received "
            f"{to_rfc3339(recording.ts_ingest)} → entry {place.stream_id}"
        )


def _recordings(
    paths: list[Path],
    index: Path | None,
    underlying: str | None,
    expiry: datetime | None,
    at: str | None,
) -> list[Recording]:
    if underlying or expiry or at:
        if not (underlying and at):
            raise ConfigError("--underlying, --expiry and --at go together")
        day: date | None = expiry.date() if expiry else None
        return [recordings.described(path, underlying, day, at) for path in paths]
    chosen = list(recordings.indexed(paths, index))
    if not chosen:
        raise ConfigError("none of these files can be replayed")
    return sorted(chosen, key=lambda recording: recording.ts_ingest)


async def _append(settings: Settings, chosen: list[Recording]) -> list[Appended]:
    producer = Producer(settings, "replay")
    topics = Topics(shards=settings.shards, tagged=settings.redis_cluster)
    places = []
    try:
        for recording in chosen:
            stream = topics.raw(topics.shard_of(recording.context.underlying))
            entry = raw_entry(
                recording.kind, recording.context, recording.body, recording.ts_ingest
            )
            places.append(await _settled(producer, stream, entry))
    finally:
        await producer.close()
    return places


async def _settled(producer: Producer, stream: str, entry: NewEntry) -> Appended:
    for attempt in range(ATTEMPTS):
        try:
            return (await producer.settle(stream, [entry]))[0]
        except OutcomeUnknown:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")
