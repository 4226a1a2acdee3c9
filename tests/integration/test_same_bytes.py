"""The same raw entry under the same revision gives the same bytes, in whatever company it came."""

import pytest

from pipeline.entries import NewEntry, decode_entry
from tests.support import bus, frames_of
from workers import processor


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    """The frame of each entry by its message id, each derived by itself."""
    processor.warmup()
    return {entry.id: frames_of.frame_of(entry) for entry in frames_of.entries()}


def test_frames_differ_where_the_chains_do(alone: dict[str, bytes]) -> None:
    assert len(alone) == len(frames_of.INSTANTS) * len(frames_of.NAMES) * 2
    assert len(set(alone.values())) == len(alone)


def test_frame_is_the_same_again_and_after_other_chains(alone: dict[str, bytes]) -> None:
    for entry in reversed(frames_of.entries()):
        assert frames_of.frame_of(entry) == alone[entry.id]
        assert frames_of.frame_of(entry) == alone[entry.id]


@pytest.mark.parametrize("copies", [1, 3], ids=["one batch", "several batches"])
async def test_worker_gives_the_frame_that_the_entry_has_alone(
    valkey: str, alone: dict[str, bytes], copies: int
) -> None:
    entries: list[NewEntry] = frames_of.entries()[::-1] * copies
    async with bus.context(valkey) as context:
        await bus.append(context, context.topics.raw(), *entries)
        written = context.telemetry.counter("entries_written", "")
        async with bus.working(context, processor.process) as work:
            await bus.until(lambda: written.value >= len(entries) or work.done(), 60)
        items = await context.redis.xrange(context.topics.enriched())
    found = [decode_entry(*item) for item in items]
    assert len(found) == len(entries)
    for result in found:
        assert result.data == alone[result.id.rpartition(":r")[0]]
