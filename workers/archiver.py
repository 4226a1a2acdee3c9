"""Raw entries to files of whole days, so that any day can be enriched again; opt-in.

Entries are acknowledged once they are on the disk. While the disk does not take them nothing more
is read and the trimmer keeps them in Redis. It never decodes a body, so none is poison to it.
"""

import asyncio
from pathlib import Path

from pipeline.archive import Archive, place
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.runtime import Context, jittered, pause, run
from pipeline.streams import Consumer

BATCH = 64  # entries that share the wait for the disk; about 1.5 MB


async def archive(context: Context) -> None:
    """Archive every shard of the raw stream until stopping."""
    files = Archive(context.settings.state_path() / "archive")
    context.telemetry.set_state("ready")
    try:
        await asyncio.gather(
            *(_archive_shard(context, files, n) for n in range(context.topics.shards))
        )
    finally:
        files.close()


async def _archive_shard(context: Context, files: Archive, shard: int) -> None:
    telemetry, topics = context.telemetry, context.topics
    read = telemetry.counter("entries_read", "entries read")
    record_age = telemetry.histogram("age_archived", "from receipt to the disk")
    consumer = Consumer(
        context,
        topics.raw(shard),
        "archiver",
        dead_stream=topics.dead(shard),
        gives_up=False,
        start="earliest",
    )
    try:
        async for batch in consumer.batches(count=BATCH):
            read.add(len(batch))
            by_file: dict[Path, list[Entry]] = {}
            for entry in batch:
                try:
                    by_file.setdefault(place(entry), []).append(entry)
                except DecodeError as error:
                    await consumer.dead_letter(entry, "undecodable", str(error))
            for where, entries in by_file.items():
                if await _until_written(context, files, where, entries):
                    await consumer.ack(entries)
            record_age((context.clock.now_ns() - batch[-1].ts) / 1e9)
    finally:
        await consumer.close()


async def _until_written(
    context: Context, files: Archive, where: Path, entries: list[Entry]
) -> bool:
    """Write, and while the disk refuses try again; False if it still does when stopping.

    Then the entries stay pending, and come again after the next start.
    """
    telemetry, stopping = context.telemetry, context.stopping
    archived = telemetry.counter("entries_archived", "entries written to files")
    known = telemetry.counter("entries_known", "entries found in their file and not written again")
    size = telemetry.counter("bytes_archived", "bytes written to files")
    attempt = 0
    while True:
        try:
            written, length = await asyncio.to_thread(files.write, where, entries)
        except OSError as error:
            telemetry.set_state("degraded", f"archive {where}: {error.strerror or error}")
        else:
            archived.add(written)
            known.add(len(entries) - written)
            size.add(length)
            if attempt:
                telemetry.set_state("draining" if stopping.is_set() else "ready")
            return True
        if stopping.is_set():
            return False
        await pause(stopping, jittered(attempt))
        attempt += 1


def main() -> None:
    """Run the worker."""
    run("archiver", archive)


if __name__ == "__main__":
    main()
