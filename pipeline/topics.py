"""The map of Redis: every stream, key and channel, who writes it, and its limit.

| name                    | what                                   | one writer          |
|-------------------------|----------------------------------------|---------------------|
| stream:raw              | provider bodies as received            | ingest              |
| stream:enriched         | frames                                 | processor           |
| stream:contracts        | one contract an entry, in plain text   | splitter (opt-in)   |
| stream:dead             | entries set aside with their reason    | whoever set it aside|
| stream:replay:<name>    | kept entries once more, for a day      | `stockify bus replay`|
| seq:<stream>            | hash: epoch, seq, where the epoch began| the append call     |
| audit:<stream>          | hash: what was appended, by minute     | the append call     |
| group:<stream>          | hash: group -> its card (JSON)         | the group's worker  |
| cursor:<stream>         | hash: group -> what it has finished    | the finishing call  |
| bookmark:<stream>       | hash: group -> where it was passed     | trimmer             |
| lease:<group>           | hash: owner of a shard, members' slots | the group's worker  |
| latest:<symbol id>      | newest client JSON                     | realtime            |
| latest-at:<symbol id>   | position of that value                 | realtime            |
| live:<symbol id>        | Pub/Sub channel of the same texts      | realtime            |
| catalog                 | hash: chain or underlying -> card      | realtime            |
| schema:<subject>        | hash: version -> JSON Schema           | schemas             |
| schema-log:{schema:<s>} | hash: level and revisions of a subject | schemas             |
| schema-ids              | hash: id -> subject, version and text  | schemas             |
| layout                  | JSON: into how many shards it is cut   | first start, reshard|
| worker:<name>@<host:pid>| heartbeat of a process                 | that process        |
| limit:<name>            | rate budgets                           | limits              |
| limit:{gateway}:<kind>:*| what callers used, and their sessions  | limits              |
| api-keys                | hash: id of an API key -> card (JSON)  | keys                |
| api-keys-used:{api-keys}| hash: id of an API key -> last used    | keys                |
| ticket:<digest>         | whom a stream ticket lets in, for 30 s | keys                |
| revoked                 | hash: epoch and count of revocations   | revocations         |
| revoked-cards:{revoked} | hash: what was revoked -> since, until | revocations         |
| revoked-order:{revoked} | sorted set: the same by count          | revocations         |
| revoked-until:{revoked} | sorted set: the same by when it is over| revocations         |

With more than one shard, and always on a cluster, the names carry the shard in literal braces, the
cluster's hash tag, so that all keys of a shard live in one slot.
"""

import zlib

import msgspec

LATEST_TTL_S = 8 * 86_400  # a weekend and a run of holidays must not empty the page
HEARTBEAT_TTL_S = 15


class Topics(msgspec.Struct, frozen=True):
    """Names for a number of shards. `tagged` forces the tag with one shard, as a cluster needs."""

    shards: int = 1
    tagged: bool = False

    def shard_of(self, underlying: str) -> int:
        """The shard that carries an underlying: crc32 of its name, modulo the shards."""
        return zlib.crc32(underlying.encode()) % self.shards

    def shard_of_key(self, key: str) -> int:
        """The shard of an entry's key: an underlying, or a chain (`NIFTY-20260127`)."""
        underlying, dash, expiry = key.rpartition("-")
        is_chain = dash and len(expiry) == 8 and expiry.isdigit()
        return self.shard_of(underlying if is_chain else key)

    def raw(self, shard: int = 0) -> str:
        """The stream of provider bodies."""
        return f"stream:raw{self._suffix(shard)}"

    def enriched(self, shard: int = 0) -> str:
        """The stream of frames."""
        return f"stream:enriched{self._suffix(shard)}"

    def contracts(self, shard: int = 0) -> str:
        """The stream of contracts in plain text."""
        return f"stream:contracts{self._suffix(shard)}"

    def stream(self, name: str, shard: int = 0) -> str:
        """Any stream by its name: `signals` as well as `stream:signals`."""
        return f"stream:{name.removeprefix('stream:')}{self._suffix(shard)}"

    def stream_pattern(self) -> str:
        """What the names of all streams look like, to scan for."""
        return "stream:*"

    def dead(self, shard: int = 0) -> str:
        """The stream of dead letters."""
        return f"stream:dead{self._suffix(shard)}"

    def replay(self, name: str, shard: int = 0) -> str:
        """The stream into which a stream of that short name is replayed."""
        return self.stream(f"replay:{name}", shard)

    def latest(self, symbol: str, shard: int = 0) -> str:
        """The newest client JSON of a symbol."""
        return f"latest:{self._prefix(shard)}{symbol}"

    def latest_position(self, symbol: str, shard: int = 0) -> str:
        """Where in the enriched stream the newest value comes from."""
        return f"latest-at:{self._prefix(shard)}{symbol}"

    def expiries_position(self, underlying: str, shard: int = 0) -> str:
        """When the newest list of an underlying's expiries was received."""
        return f"latest-at:{self._prefix(shard)}{underlying}:expiries"

    def live(self, symbol: str) -> str:
        """The Pub/Sub channel of a symbol."""
        return f"live:{symbol}"

    def catalog(self, shard: int = 0) -> str:
        """The chains and underlyings that have a latest value."""
        return f"catalog{self._suffix(shard)}"

    def limit(self, name: str) -> str:
        """A rate budget."""
        return f"limit:{name}"

    def client_limit(self, kind: str, name: str) -> str:
        """What a caller of the gateway used; all of them in one slot, since one call takes any."""
        return f"limit:{{gateway}}:{kind}:{name}"

    def keyspace_event(self, key: str) -> str:
        """The channel on which the server tells of changes to a key (database 0)."""
        return f"__keyspace@0__:{key}"

    def _suffix(self, shard: int) -> str:
        return f":{{{shard}}}" if self.shards > 1 or self.tagged else ""

    def _prefix(self, shard: int) -> str:
        return f"{{{shard}}}:" if self.shards > 1 or self.tagged else ""


def sequence(stream: str) -> str:
    """The hash that numbers a stream: epoch, seq, and the seq at which the epoch began."""
    return f"seq:{stream}"


def tally(stream: str) -> str:
    """The hash that says what was ever appended to a stream, by minute."""
    return f"audit:{stream}"


def group_cards(stream: str) -> str:
    """The hash of a stream's registered groups."""
    return f"group:{stream}"


def cursors(stream: str) -> str:
    """The hash of what each group of a stream has finished; it outlives the stream."""
    return f"cursor:{stream}"


def bookmarks(stream: str) -> str:
    """The hash of where groups stood that the trimmer reported or passed."""
    return f"bookmark:{stream}"


def lease(stream: str, group: str) -> str:
    """Who may work a group's shard, and who its members are."""
    return f"lease:{tag(stream)}{group}"


def tag(stream: str) -> str:
    """The shard's tag of a stream's name as a prefix, empty without one: `{3}:`."""
    before, brace, rest = stream.partition("{")
    return f"{{{rest.partition('}')[0]}}}:" if brace and before else ""


def schema(subject: str) -> str:
    """The hash of a subject's registered versions: version -> JSON Schema."""
    return f"schema:{subject}"


def schema_log(subject: str) -> str:
    """The hash of a subject's level and of every text it was registered with, in order.

    The braces put it into the slot of `schema:<subject>`, so that one Lua call writes both.
    """
    return f"schema-log:{{{schema(subject)}}}"


def heartbeat(name: str) -> str:
    """The heartbeat of a process."""
    return f"worker:{name}"


def ticket(digest: str) -> str:
    """A stream ticket, by its digest."""
    return f"ticket:{digest}"


SCHEMA_IDS = "schema-ids"
HEARTBEATS = "worker:*"
LAYOUT = "layout"

# Keys of one Lua call share a slot by their tag.
API_KEYS = "api-keys"
API_KEYS_USED = "api-keys-used:{api-keys}"
REVOKED = "revoked"
REVOKED_CARDS = "revoked-cards:{revoked}"
REVOKED_ORDER = "revoked-order:{revoked}"
REVOKED_UNTIL = "revoked-until:{revoked}"
