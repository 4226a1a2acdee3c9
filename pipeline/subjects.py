"""A subject of the registry as it stands, and whether a schema may join it. Pure.

A version may be registered in several revisions: it grows while its number stays. Each text has an
id of its own, made from the text and therefore the same in every instance, and keeps it for ever.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

import msgspec

from pipeline.compatibility import Level, check
from pipeline.documents import Document, parse_document, parts
from pipeline.errors import SchemaConflict
from pipeline.shapes import DEFAULT_LEVEL, Schema

_WITH_BACKWARD = {
    Level.FORWARD: Level.FULL,
    Level.FORWARD_TRANSITIVE: Level.FULL_TRANSITIVE,
}
REASONS_SAID = 3  # of a refusal; the rest is counted


class Revision(msgspec.Struct, frozen=True):
    """One text that was registered under a version; `schema` is that text."""

    id: int
    version: int
    schema: str

    @property
    def document(self) -> Document:
        """The text decoded. Raises DecodeError."""
        return parse_document(self.schema)


class Admission(Enum):
    """How a schema comes in: it stands there already, beside the newest, or as the newest."""

    KNOWN = "known"
    OLDER = "older"
    NEWEST = "newest"


class Subject(msgspec.Struct, frozen=True):
    """What is registered under a name: every revision in the order it came, and the current texts.

    `level` is None where nobody has chosen one yet. The first `unlogged` revisions stand among the
    current texts alone.
    """

    name: str
    level: Level | None
    revisions: tuple[Revision, ...]
    current: Mapping[int, str]
    unlogged: int = 0

    @property
    def versions(self) -> list[int]:
        """The registered versions, ascending."""
        return sorted(self.current)

    def newest(self, version: int) -> Revision:
        """The current revision of a version. Raises KeyError where there is none."""
        text = self.current[version]
        found = [one for one in self.revisions if (one.version, one.schema) == (version, text)]
        return found[-1]

    def only(self, version: int) -> "Subject":
        """The subject as if it had this version alone."""
        kept = tuple(one for one in self.revisions if one.version == version)
        return Subject(self.name, self.level, kept, {version: self.current[version]})

    def ordered(self) -> list[Revision]:
        """Every revision, lower versions first, each version's current text last of it."""
        return sorted(
            self.revisions,
            key=lambda one: (one.version, self.current.get(one.version) == one.schema),
        )


def admit(subject: Subject, schema: Schema) -> Admission:
    """How a schema may come into its subject.

    Raises SchemaConflict, which names the fields and the rules; DecodeError for a text, registered
    or new, that is no schema.
    """
    own = schema.text.decode()
    if subject.level is not None and schema.level is not subject.level:
        raise SchemaConflict(
            f"{schema.type} asks for level {schema.level}, its subject is kept at {subject.level}"
        )
    if any((one.version, one.schema) == (schema.version, own) for one in subject.revisions):
        return Admission.KNOWN
    document = parse_document(own)
    if _is_older(subject, schema.version, document):
        # Says less: an older writer, or one that has dropped something. So what reads now has to
        # read it at every level.
        level = _WITH_BACKWARD.get(schema.level, schema.level)
        if not any(objections(subject, schema.version, document, level, is_newest=False)):
            return Admission.OLDER
    reasons = list(objections(subject, schema.version, document, schema.level))
    if reasons:
        more = len(reasons) - REASONS_SAID
        tail = f"; and {more} more" if more > 0 else ""
        raise SchemaConflict(f"{schema.type}: {'; '.join(reasons[:REASONS_SAID])}{tail}")
    return Admission.NEWEST


def objections(
    subject: Subject,
    version: int,
    document: Document,
    level: Level,
    *,
    is_newest: bool = True,
) -> Iterator[str]:
    """What the registered revisions have against a document as a version of theirs, a line each.

    `is_newest`: it comes after the revisions of its own version, else before the current one.
    """
    if level is Level.NONE:
        return
    earlier: list[Revision] = []
    later: list[Revision] = []
    for one in subject.ordered():
        is_current = subject.current.get(one.version) == one.schema
        is_after = one.version == version and is_current and not is_newest
        (later if one.version > version or is_after else earlier).append(one)
    if not level.is_transitive:
        earlier, later = earlier[-1:], later[:1]
    for one in earlier:
        yield from _lines(one, check(one.document, document, level), level)
    for one in later:
        yield from _lines(one, check(document, one.document, level), level)


def ids(subject: str, version: int, text: str) -> Iterator[int]:
    """The ids that a text may have, the wanted one first: above zero, of 31 bits."""
    attempt = 0
    while True:
        whole = f"{subject}\n{version}\n{attempt}\n{text}".encode()
        digest = hashlib.blake2b(whole, digest_size=4).digest()
        number = int.from_bytes(digest, "big") & 0x7FFFFFFF
        if number:
            yield number
        attempt += 1


def claim(subject: str, version: int, text: str) -> str:
    """What stands in the index beside an id: whose it is, beginning with the subject."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{subject} {version} {digest}"


def level_of(subject: Subject) -> Level:
    """The level that is kept; the default where none was chosen."""
    return subject.level or DEFAULT_LEVEL


def _is_older(subject: Subject, version: int, document: Document) -> bool:
    """Whether the current text of the version says all of this and more."""
    current = subject.current.get(version)
    return current is not None and parts(document) < parts(parse_document(current))


def _lines(one: Revision, messages: Sequence[str], level: Level) -> list[str]:
    return [f"not {level} with version {one.version} (id {one.id}): {text}" for text in messages]
