from collections import Counter

from redis.crc import key_slot

from pipeline import topics
from pipeline.topics import Topics


def test_one_shard_has_plain_names() -> None:
    plain = Topics()
    assert plain.raw() == "stream:raw"
    assert plain.enriched() == "stream:enriched"
    assert plain.contracts() == "stream:contracts"
    assert plain.dead() == "stream:dead"
    assert plain.latest("NIFTY") == "latest:NIFTY"
    assert plain.live("NIFTY") == "live:NIFTY"
    assert topics.sequence(plain.raw()) == "seq:stream:raw"
    assert plain.stream("signals") == plain.stream("stream:signals") == "stream:signals"


def test_all_keys_of_a_shard_share_one_hash_tag() -> None:
    sharded = Topics(shards=4)
    names = [
        sharded.raw(2),
        sharded.enriched(2),
        sharded.contracts(2),
        sharded.dead(2),
        sharded.stream("signals", 2),
        sharded.latest("NIFTY", 2),
        sharded.latest_position("NIFTY", 2),
        sharded.catalog(2),
        topics.lease(sharded.raw(2), "storage"),
        topics.sequence(sharded.raw(2)),
        topics.group_cards(sharded.raw(2)),
    ]
    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {"{2}"}
    assert sharded.raw(2) == "stream:raw:{2}"


def test_keys_of_one_call_on_revocations_share_a_slot() -> None:
    names = (
        *(topics.REVOKED, topics.REVOKED_CARDS),
        *(topics.REVOKED_ORDER, topics.REVOKED_UNTIL),
    )
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert key_slot(topics.API_KEYS.encode()) == key_slot(topics.API_KEYS_USED.encode())


def test_underlyings_keep_their_shard_and_spread() -> None:
    sharded = Topics(shards=4)
    assert sharded.shard_of("NIFTY") == sharded.shard_of("NIFTY")
    spread = Counter(sharded.shard_of(f"STOCK{n}") for n in range(400))
    assert set(spread) == {0, 1, 2, 3}


def test_chain_is_in_the_shard_of_its_underlying() -> None:
    cut = Topics(shards=1_000)
    assert cut.shard_of_key("NIFTY-20260127") == cut.shard_of_key("NIFTY") == cut.shard_of("NIFTY")
    assert cut.shard_of_key("BAJAJ-AUTO") == cut.shard_of("BAJAJ-AUTO")
    assert cut.shard_of_key("BAJAJ-AUTO-20260127") == cut.shard_of("BAJAJ-AUTO")
    assert cut.stream("signals", 3) == "stream:signals:{3}"
    assert Topics().replay("raw") == "stream:replay:raw"
