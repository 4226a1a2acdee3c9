"""`stockify key` against a real server: what is printed once, listed, and revoked."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner, Result

from pipeline import topics
from pipeline.credentials import Principal
from pipeline.errors import BusUnavailable, ConfigError, DecodeError
from pipeline.keys import ApiKeys, Tickets
from pipeline.revocations import Place, Revocations, is_revoked
from pipeline.runtime import connect_to
from stockify import cli
from tests.support import bus


@pytest.fixture
def url(valkey: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STOCKIFY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("STOCKIFY_REDIS_URL", valkey)
    return valkey


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli.commands, ["key", *arguments]))


async def keys() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((await run("list", "--json")).output)["keys"]
    return found


async def test_key_is_printed_once_alone_on_stdout(url: str) -> None:
    made = await run("create", "--name", "desk", "--scope", "live", "--expires", "90d")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    assert text.count("\n") == 0
    number = text.split("_")[1]
    assert f"key {number} of desk: live, until 20" in made.stderr
    assert text not in made.stderr
    shown = (await run("list")).output
    assert number in shown
    assert "desk" in shown
    assert text.rpartition("_")[2] not in shown + str(await keys())
    async with bus.context(url) as context:
        key = await ApiKeys(context.redis).check(text)
        assert key is not None
        assert 89 * 86_400 < key.expires - time.time() <= 90 * 86_400
        assert await ApiKeys(context.redis).check(text[:-1] + "g") is None


async def test_list_says_what_holds_and_when_it_was_used(url: str) -> None:
    assert (await run("list")).output == "no API keys\n"
    one = (await run("create", "--name", "one")).stdout.strip()
    two = (await run("create", "--name", "two", "--scope", "export", "--scope", "live")).stdout
    async with bus.context(url) as context:
        await ApiKeys(context.redis).check(one)
    assert (await run("revoke", two.split("_")[1])).exit_code == 0
    by_name = {str(key["name"]): key for key in await keys()}
    assert by_name["one"]["scopes"] == ["live", "history"]
    assert by_name["two"]["scopes"] == ["live", "export"]
    assert (by_name["one"]["holds"], by_name["two"]["holds"]) == (True, False)
    assert by_name["one"]["used"]
    assert by_name["two"]["used"] is None
    assert by_name["two"]["revoked"]
    states = [line.split()[-1] for line in (await run("list")).output.splitlines()[1:]]
    assert sorted(states) == ["holds", "revoked"]


async def test_revoking_a_key_revokes_the_tokens_given_for_it(url: str) -> None:
    text = (await run("create", "--name", "desk")).stdout.strip()
    number = text.split("_")[1]
    token = Principal(f"key-{number}", frozenset(), time.time() + 60, "t1", "key", time.time() - 1)
    said = await run("revoke", number)
    assert said.output == f"key {number} of desk is revoked, and the tokens given for it\n"
    async with bus.context(url) as context:
        assert await ApiKeys(context.redis).check(text) is None
        news = await Revocations(context.redis).read(Place())
    assert is_revoked(token, news.tokens, news.subjects)
    assert (await run("revoke", number)).exit_code == 0  # again is no error


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(("revoke", "nothing"), "no API key 'nothing'", id="unknown"),
        pytest.param(("create", "--name", ""), "1 to 80", id="no name"),
        pytest.param(("create", "--name", "a\nb"), "printable", id="two lines"),
        pytest.param(("create", "--name", "x" * 81), "1 to 80", id="long name"),
        pytest.param(("create", "--name", "x", "--expires", "soon"), "time to live", id="when"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    url: str, arguments: tuple[str, ...], complaint: str
) -> None:
    result = await run(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert complaint in str(result.exception)


async def test_unknown_scope_is_refused(url: str) -> None:
    assert (await run("create", "--name", "x", "--scope", "root")).exit_code == 2
    async with bus.context(url) as context:
        for scopes in (("root",), ("live", "root"), ()):
            with pytest.raises(ValueError, match="scope"):
                await ApiKeys(context.redis).create("x", scopes)


# What Redis keeps


async def test_revocations_are_read_from_where_one_stopped(url: str) -> None:
    async with bus.context(url) as context:
        revocations = Revocations(context.redis)
        empty = await revocations.read(Place())
        assert (empty.place, empty.tokens, empty.subjects) == (Place(), {}, {})
        await revocations.revoke_token("t1", time.time() + 100)
        first = await revocations.read(empty.place)
        assert list(first.tokens) == ["t1"]
        await revocations.revoke_token("t2", time.time() + 100)
        await revocations.revoke_token("t1", time.time() + 100)  # nothing new
        instant = await revocations.revoke_subject("desk")
        await revocations.revoke_subject("desk", before=instant - 50)  # takes nothing back
        second = await revocations.read(first.place)
        assert list(second.tokens) == ["t2"]
        assert second.subjects["desk"][0] == instant
        assert second.place.count == 3
        nothing = await revocations.read(second.place)
        assert (nothing.place, nothing.tokens, nothing.subjects) == (second.place, {}, {})
        await context.redis.flushall()
        await revocations.revoke_token("t3", time.time() + 100)
        anew = await revocations.read(second.place)
        assert list(anew.tokens) == ["t3"]
        assert anew.place.epoch != second.place.epoch


async def test_expired_revocations_leave_redis(url: str) -> None:
    async with bus.context(url) as context:
        revocations = Revocations(context.redis)
        for number in range(30):
            await revocations.revoke_token(f"t{number}", time.time() - 3_600)
        await revocations.revoke_token("kept", time.time() + 100)
        for name in (topics.REVOKED_ORDER, topics.REVOKED_UNTIL):
            assert await context.redis.zcard(name) == 1
        assert await context.redis.hlen(topics.REVOKED_CARDS) == 1


async def test_damaged_cards_are_told_as_such(url: str) -> None:
    async with bus.context(url) as context:
        text, key = await ApiKeys(context.redis).create("desk", ("live",))
        await context.redis.hset(topics.API_KEYS, key.id, "{")
        with pytest.raises(DecodeError):
            await ApiKeys(context.redis).check(text)
        with pytest.raises(DecodeError):
            await ApiKeys(context.redis).listed()


async def test_redis_away_is_said_so() -> None:
    async with connect_to("redis://127.0.0.1:1/0", retries=0) as away:
        with pytest.raises(BusUnavailable):
            await ApiKeys(away).listed()
        with pytest.raises(BusUnavailable):
            await Tickets(away).redeem(f"st_{'0' * 64}")
        with pytest.raises(BusUnavailable):
            await Revocations(away).read(Place())
