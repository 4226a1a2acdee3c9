"""Whether anything is missing or double between raw, enriched and Postgres, by minute.

Pure arithmetic on what was counted: it reads nothing. Each count comes with the sum of the entries'
identities, so that one entry lost and another doubled do not pass for none.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from pipeline.streams.tallies import NONE, Bucket, Count, Stage, merged

# Of what is enriched, those have a line in the ledger; of expiries nothing goes to Postgres.
CHAIN_KIND = "chain"
STORED_KINDS = frozenset((CHAIN_KIND, "polls"))
PROCESSOR, STORAGE = "processor", "storage"  # whose finishing the later stages show
ENRICHED, POSTGRES = "enriched", "Postgres"
ALL_SHARDS = -1

CLEAN = "clean"
IN_FLIGHT = "in flight"
BEYOND = "beyond"  # Postgres has what Redis has lost after it was stored
MISSING = "missing"
DOUBLE = "double"
DIFFERS = "differs"  # as many, but not the same
_FAULTS = (MISSING, DOUBLE, DIFFERS)
_BY_WEIGHT = (*_FAULTS, BEYOND, IN_FLIGHT, CLEAN)

Found = tuple[str, str, Count]  # verdict, where, by what


class Shard(msgspec.Struct, frozen=True):
    """What was counted of one shard: in Redis before and after Postgres was read, and there.

    What is the same before and after stood still in between. `stored` has by minute and kind what
    was received as Postgres holds it, revisions of one entry as one.
    """

    number: int
    before: tuple[Stage, Stage]
    after: tuple[Stage, Stage]
    stored: Mapping[Bucket, Count]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One minute of a shard and kind, as every stage has it, and what was found.

    `dead` counts were set aside and are taken off what the next stage must have; `again` was
    appended on purpose although counted before. `off` says by what the stage named in `where` is
    off: below zero missing there, above zero too many.
    """

    minute: int
    shard: int
    kind: str
    raw: Count
    raw_dead: int
    again: int
    enriched: Count
    enriched_dead: int
    stored: Count | None
    in_flight: int
    verdict: str
    where: str = ""
    off: Count = NONE

    @property
    def is_fault(self) -> bool:
        """Whether something is missing or double."""
        return self.verdict in _FAULTS


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """One minute of a chain as its coverage says, and how many of its snapshots are `stored`.

    `upstream` and `us` of the polls `expected` brought nothing, and why is known.
    """

    minute: int
    symbol: str
    expected: int
    present: int
    upstream: int
    us: int
    stored: int

    @property
    def is_miscounted(self) -> bool:
        """Whether coverage and ledger do not agree on what is there."""
        return self.present != self.stored

    @property
    def absent(self) -> int:
        """Snapshots that were received, as it is said, and are not there."""
        return max(0, self.expected - self.upstream - self.us - self.present)


class Report(msgspec.Struct, frozen=True):
    """Every judged minute, oldest first, and what coverage says of the same minutes."""

    lines: tuple[Line, ...]
    covered: tuple[Covered, ...] = ()

    @property
    def miscounted(self) -> tuple[Covered, ...]:
        """The minutes in which coverage counts other snapshots than are there."""
        return tuple(one for one in self.covered if one.is_miscounted)

    @property
    def unaccounted(self) -> int:
        """Snapshots that were received and are neither there, nor on their way, nor set aside."""
        absent = sum(one.absent for one in self.covered)
        chains = [line for line in self.lines if line.kind == CHAIN_KIND]
        known = sum(line.in_flight + line.raw_dead + line.enriched_dead for line in chains)
        return max(0, absent - known)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is missing or double, and coverage says what is there."""
        return not (self.faults or self.miscounted or self.unaccounted)

    @property
    def faults(self) -> tuple[Line, ...]:
        """The minutes in which something is missing or double."""
        return tuple(line for line in self.lines if line.is_fault)

    def entries(self, verdict: str) -> int:
        """By how many entries lines of that verdict are off; at least one each."""
        return sum(max(1, abs(line.off.n)) for line in self.lines if line.verdict == verdict)


def began(stages: Sequence[Stage], horizon: int) -> int | None:
    """The first minute from `horizon` on that a shard has counted; None where there is none.

    Before the horizon a tally may be half forgotten.
    """
    counted = (bucket for stage in stages for bucket in stage.tally.counted)
    return min((minute for minute, _kind in counted if minute >= horizon), default=None)


def judge(
    shards: Sequence[Shard],
    first_minute: int,
    last_minute: int,
    horizon: int,
    past: Sequence[Shard] | None = None,
) -> Report:
    """Compare every minute in [first_minute, last_minute] of every shard.

    What was received before a shard's tally began is not judged; nor is, in the minute in which it
    began, what only the later stages have counted. `past` are shards of earlier cuts, where there
    were some: Postgres does not know by which cut an entry came, so a minute that is not in order
    shard by shard is then judged as a whole, with ALL_SHARDS for its shard.
    """
    lines: list[Line] = []
    for shard in shards:
        lines += _lines(shard, first_minute, last_minute, horizon)
    if past is not None:
        by_bucket: dict[Bucket, list[Line]] = {}
        for line in lines:
            by_bucket.setdefault((line.minute, line.kind), []).append(line)
        lines = []
        old = {bucket for shard in past for stage in shard.before for bucket in stage.tally.counted}
        for line in _lines(_together([*shards, *past]), first_minute, last_minute, horizon):
            bucket = (line.minute, line.kind)
            own = by_bucket.get(bucket, [])
            is_settled = own and bucket not in old and all(one.verdict == CLEAN for one in own)
            lines += own if is_settled else [line]
    return Report(tuple(sorted(lines, key=lambda line: (line.minute, line.shard, line.kind))))


def _lines(shard: Shard, first_minute: int, last_minute: int, horizon: int) -> list[Line]:
    since = began(shard.before, horizon)
    if since is None:
        return []
    buckets = {bucket for stage in shard.before for bucket in stage.tally.counted}
    buckets |= shard.stored.keys()
    return [
        _line(shard, bucket, is_first=bucket[0] == since)
        for bucket in buckets
        if max(since, first_minute) <= bucket[0] <= last_minute
    ]


def _together(shards: Sequence[Shard]) -> Shard:
    """Several shards as one."""
    stored: dict[Bucket, Count] = {}
    for shard in shards:
        for bucket, count in shard.stored.items():
            stored[bucket] = stored.get(bucket, NONE).plus(count)
    before, after = (
        (merged([pair[0] for pair in pairs]), merged([pair[1] for pair in pairs]))
        for pairs in ([shard.before for shard in shards], [shard.after for shard in shards])
    )
    return Shard(ALL_SHARDS, before, after, stored)


def is_double(line: Line, identities: Collection[int]) -> bool:
    """Whether what Postgres seems to miss was stored once and counted more often before.

    `identities` are those that Postgres has of that minute, kind and shard. Sure for one entry, for
    two, and for one that came many times.
    """
    short, sum_of = -line.off.n, -line.off.h
    if short < 1 or line.where != POSTGRES:
        return False
    if sum_of % short == 0 and sum_of // short in identities:
        return True
    return short == 2 and any(sum_of - one in identities for one in identities)


def with_doubles(report: Report, doubles: Collection[Line]) -> Report:
    """The same report, with those lines called double."""
    lines = tuple(
        msgspec.structs.replace(line, verdict=DOUBLE, where=ENRICHED, off=NONE.less(line.off))
        if line in doubles
        else line
        for line in report.lines
    )
    return msgspec.structs.replace(report, lines=lines)


def _line(shard: Shard, bucket: Bucket, *, is_first: bool) -> Line:
    raw, enriched = shard.before
    raw_count = raw.tally.counted.get(bucket, NONE)
    enriched_count = enriched.tally.counted.get(bucket, NONE)
    raw_dead = raw.tally.dead.get(bucket, {}).get(PROCESSOR, NONE)
    enriched_dead = enriched.tally.dead.get(bucket, {}).get(STORAGE, NONE)
    # A letter of the processor goes back in place of an entry of which nothing came; any other
    # copy is enriched once more.
    again = NONE
    for group, count in raw.tally.again.get(bucket, {}).items():
        again = again if group == PROCESSOR else again.plus(count)
    stored = shard.stored.get(bucket, NONE) if bucket[1] in STORED_KINDS else None
    appended = raw_count.plus(again).less(raw_dead)
    found: Found = (IN_FLIGHT, "", NONE)
    if not _is_moving(shard, bucket):
        found = _first_hop(raw, bucket, appended, enriched_count, is_first)
        if stored is not None and bucket not in enriched.unfinished:
            wanted = enriched_count.less(again).less(enriched_dead)
            exact_contracts = again.n == 0 and (enriched_dead.n == 0 or enriched_dead.c > 0)
            found = _graver(found, _second_hop(wanted, stored, exact_contracts))
        elif stored is not None:
            found = _graver(found, (IN_FLIGHT, "", NONE))
    verdict, where, off = found
    waiting = (stage.unfinished.get(bucket, NONE).n for stage in shard.before)
    return Line(
        minute=bucket[0],
        shard=shard.number,
        kind=bucket[1],
        raw=raw_count,
        raw_dead=raw_dead.n,
        again=again.n,
        enriched=enriched_count,
        enriched_dead=enriched_dead.n,
        stored=stored,
        in_flight=sum(waiting),
        verdict=verdict,
        where=where,
        off=off,
    )


def _first_hop(
    raw: Stage, bucket: Bucket, appended: Count, enriched: Count, is_first: bool
) -> Found:
    """Raw against enriched, of a minute that stood still: what is unfinished is taken off."""
    unfinished = raw.unfinished.get(bucket, NONE)
    off = enriched.less(appended.less(unfinished))
    if 0 < off.n <= unfinished.n:
        # A stream that was lost is made anew: what had been enriched before waits once more.
        return IN_FLIGHT, "", NONE
    if off.n > 0:
        return (CLEAN, "", NONE) if is_first else (DOUBLE, ENRICHED, off)
    if off.n < 0:
        return MISSING, ENRICHED, off
    if off.h:
        return DIFFERS, ENRICHED, off
    return (IN_FLIGHT if unfinished.n else CLEAN), "", NONE


def _second_hop(wanted: Count, stored: Count, exact_contracts: bool) -> Found:
    """Enriched against Postgres, where nothing of that minute is on its way."""
    off = stored.less(wanted)
    if off.n < 0:
        return MISSING, POSTGRES, off
    if off.n > 0:
        return BEYOND, POSTGRES, off
    if off.h or (exact_contracts and off.c):
        return DIFFERS, POSTGRES, off
    return CLEAN, "", NONE


def _graver(first: Found, second: Found) -> Found:
    """Of both hops: a fault of the first explains the second, unless entries are lost at both."""
    if first[0] == second[0] == MISSING:
        return MISSING, f"{ENRICHED}, {POSTGRES}", first[2].plus(second[2])
    if first[0] in _FAULTS:
        return first
    return min(first, second, key=lambda one: _BY_WEIGHT.index(one[0]))


def _is_moving(shard: Shard, bucket: Bucket) -> bool:
    """Whether that minute was worked on while everything was read, or may have been."""
    return any(
        not stage.is_whole and bucket[0] >= _first_unfinished(stage) for stage in shard.before
    ) or any(
        _of(before, bucket) != _of(after, bucket)
        for before, after in zip(shard.before, shard.after, strict=True)
    )


def _of(stage: Stage, bucket: Bucket) -> tuple[object, ...]:
    tally = stage.tally
    return (
        tally.counted.get(bucket),
        tally.dead.get(bucket),
        tally.again.get(bucket),
        stage.unfinished.get(bucket),
    )


def _first_unfinished(stage: Stage) -> int:
    return min((minute for minute, _kind in stage.unfinished), default=0)
