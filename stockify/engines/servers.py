"""A Redis that is not ours: one server or a cluster, found and examined.

Questions go over bare connections, as in `valkey`. It changes nothing.
"""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from pipeline.config import Settings
from pipeline.errors import BusUnavailable, ConfigError
from stockify.engines import valkey
from stockify.engines.valkey import Finding

SLOTS = 16_384


class Node(msgspec.Struct, frozen=True):
    """A node of a cluster: its URL with the password, and what stands in messages."""

    url: str
    name: str


class Slots(msgspec.Struct, frozen=True):
    """A range of a cluster's slots and who has them, the owner first."""

    first: int
    last: int
    nodes: tuple[Node, ...]


async def findings(settings: Settings) -> list[Finding]:
    """What its user should change. Raises BusUnavailable where no server answers."""
    url, is_cluster = await _first(settings)
    if is_cluster is not settings.redis_cluster:
        text = (
            "it is a cluster: set STOCKIFY_REDIS_CLUSTER=true"
            if is_cluster
            else "it is no cluster: unset STOCKIFY_REDIS_CLUSTER"
        )
        return [Finding(text, is_fatal=True)]
    if not is_cluster:
        return await valkey.findings(url)
    slots = await _slots(url)
    found = _of_slots(slots)
    for node in dict.fromkeys(node for part in slots for node in part.nodes):
        try:
            found += [
                Finding(f"{node.name}: {one.text}", one.is_fatal)
                for one in (*await valkey.findings(node.url), *await _of_node(node))
            ]
        except BusUnavailable as error:
            found.append(Finding(f"{node.name}: {error}", is_fatal=False))
    return found


async def check_kind(settings: Settings) -> None:
    """Raises ConfigError where it is a cluster and the settings say otherwise, or the reverse."""
    _, is_cluster = await _first(settings)
    if is_cluster is not settings.redis_cluster:
        (finding,) = await findings(settings)
        raise ConfigError(f"Redis: {finding.text}")


async def ask_owners(settings: Settings, *commands: tuple[str, ...]) -> list[Any]:
    """The answers of every server that owns keys, one after the other; an error is one too.

    A node answers with an error what is not its own. Raises BusUnavailable.
    """
    url, is_cluster = await _first(settings)
    urls = [part.nodes[0].url for part in await _slots(url)] if is_cluster else [url]
    return [answer for one in dict.fromkeys(urls) for answer in await valkey.ask(one, *commands)]


async def _first(settings: Settings) -> tuple[str, bool]:
    """The first server named that answers, and whether it is a cluster's node."""
    complaint = BusUnavailable("Redis: no server is named")
    for url in settings.redis_urls():
        try:
            (answer,) = await valkey.ask(url, ("INFO", "cluster"))
        except BusUnavailable as error:
            complaint = error
        else:
            return url, isinstance(answer, bytes) and b"cluster_enabled:1" in answer
    raise complaint


async def _slots(url: str) -> list[Slots]:
    (answer,) = await valkey.ask(url, ("CLUSTER", "SLOTS"))
    return slots_of(answer, url) if isinstance(answer, list) else []


def slots_of(answer: list[Any], url: str) -> list[Slots]:
    """What `CLUSTER SLOTS` of the node at `url` says, as URLs with its password."""
    parts = urlsplit(url)
    user_info = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    found = []
    for first, last, *nodes in answer:
        named = []
        for host, port, *_ in nodes:
            name = f"{bytes(host or b'').decode() or parts.hostname}:{port}"
            place = urlunsplit((parts.scheme, f"{user_info}{name}", "/0", parts.query, ""))
            named.append(Node(place, name))
        found.append(Slots(int(first), int(last), tuple(named)))
    return found


def _of_slots(slots: list[Slots]) -> list[Finding]:
    found = []
    served = sum(part.last - part.first + 1 for part in slots)
    if served < SLOTS:
        text = f"{SLOTS - served:,} of {SLOTS:,} slots are nobody's: their shards stand still"
        found.append(Finding(text, is_fatal=True))
    for part in slots:
        if len(part.nodes) < 2:
            text = (
                f"{part.nodes[0].name} has no replica: if it is lost, so are the shards in slots "
                f"{part.first}-{part.last}"
            )
            found.append(Finding(text, is_fatal=False))
    return found


async def _of_node(node: Node) -> list[Finding]:
    (answer,) = await valkey.ask(node.url, ("CONFIG", "GET", "cluster-require-full-coverage"))
    if valkey.config_value(answer) != "yes":
        return []
    text = "cluster-require-full-coverage is yes: a failover of one node stops all; set no"
    return [Finding(text, is_fatal=False)]
