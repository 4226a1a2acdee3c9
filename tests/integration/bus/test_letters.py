"""Dead letters go back once, and are told apart from what was only appended."""

from pipeline import topics
from pipeline.streams import letters
from pipeline.streams.letters import Filter, Letter
from tests.support import bus
from tests.support.conformance import Target


async def set_aside(context: bus.Context, stream: str, count: int) -> list[Letter]:
    """Append entries and have a group set all of them aside; gives the letters, newest first."""
    await bus.append_numbered(context, stream, count)
    reader = bus.consumer(context, stream)
    for number, entry in enumerate(await bus.take(reader, count)):
        await reader.dead_letter(entry, "odd" if number % 2 else "even", f"error {number}")
    await reader.close()
    return await all_letters(context, stream)


async def all_letters(
    context: bus.Context, stream: str, wanted: Filter | None = None
) -> list[Letter]:
    found = letters.read_letters(context.redis, f"{stream}:dead", wanted or Filter())
    return [letter async for letter in found]


async def counted(context: bus.Context, stream: str) -> dict[str, int]:
    """The tally's entries, without hashes."""
    held = await context.redis.hgetall(topics.tally(stream))
    return {name.decode(): int(value) for name, value in held.items() if name.endswith(b":n")}


async def test_letters_say_where_they_came_from_and_why(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        newest, *_, oldest = await set_aside(context, stream, 4)
        assert (oldest.id, oldest.reason, oldest.error) == ("id-0", "even", "error 0")
        assert (newest.id, newest.stream, newest.group) == ("id-3", stream, "group")
        assert (newest.type, newest.key, newest.attempts) == ("test.v1", "NIFTY", 1)
        assert newest.at >= oldest.at > 0
        chosen = await all_letters(context, stream, Filter(reason="odd"))
        assert [letter.id for letter in chosen] == ["id-3", "id-1"]
        assert len(await all_letters(context, stream, Filter(key="NIFTY"))) == 4
        assert await all_letters(context, stream, Filter(key="NIF")) == []
        assert await all_letters(context, stream, Filter(group="other")) == []
        assert await all_letters(context, stream, Filter(since=newest.at + 1)) == []


async def test_letter_goes_back_once_as_the_entry_it_was(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        (letter,) = await set_aside(context, stream, 1)
        before = await counted(context, stream)
        place = await letters.redrive(context.redis, letter)
        assert place is not None
        assert place.seq == 2
        assert await letters.redrive(context.redis, letter) is None
        reader = bus.consumer(context, stream)
        (entry,) = await bus.take(reader, 1)
        assert (entry.stream_id, entry.seq, entry.id) == (place.stream_id, 2, "id-0")
        assert (entry.type, entry.key, entry.ts, entry.data) == ("test.v1", "NIFTY", 0, b"0")
        fields = await letters.read_fields(context.redis, stream, entry.stream_id)
        assert fields is not None
        assert not {b"reason", b"error", b"source_id", b"group", b"at"} & set(fields)
        await reader.ack([entry])
        await reader.close()
        assert before == {"0:test:n": 1, "0:test:dead:group:n": 1}
        assert await counted(context, stream) == {
            "0:test:n": 1,  # appended once, whatever became of it
            "0:test:dead:group:n": 0,
            "0:test:again:group:n": 1,
        }
        assert await context.redis.xlen(f"{stream}:dead") == 0


async def test_dropped_letter_is_gone_and_stays_counted(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        (letter,) = await set_aside(context, stream, 1)
        assert await letters.drop(context.redis, letter)
        assert not await letters.drop(context.redis, letter)
        assert await letters.redrive(context.redis, letter) is None
        assert await all_letters(context, stream) == []
        assert (await counted(context, stream))["0:test:dead:group:n"] == 1


async def test_letter_whose_stream_was_lost_goes_into_its_next_epoch(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        (letter,) = await set_aside(context, stream, 1)
        sequence = topics.sequence(stream)
        epoch = (await context.redis.hget(sequence, "epoch")).decode()
        await context.redis.delete(stream)
        place = await letters.redrive(context.redis, letter)
        assert place is not None
        assert place.epoch != epoch
        assert place.seq == 2
        assert (await context.redis.hget(sequence, "epoch_seq")) == b"1"


async def test_pages_of_letters_are_joined(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        for number in range(230):
            await context.redis.xadd(f"{stream}:dead", {"id": number, "reason": "many"})
        found = await all_letters(context, stream)
        assert [int(letter.id) for letter in found] == list(reversed(range(230)))
