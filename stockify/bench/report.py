"""What a bench gives: lines for a person, figures for a program."""

import msgspec


class MissingPeer(Exception):
    """Something a bench measures against is not installed; the message names it."""


class Line(msgspec.Struct, frozen=True):
    """One line of the table. `key` is its name in the JSON object."""

    key: str
    name: str
    value: float
    unit: str
    digits: int = 0


class Report(msgspec.Struct, frozen=True):
    """A bench's result."""

    title: str
    caption: str
    lines: list[Line]

    @property
    def figures(self) -> dict[str, float]:
        """The values by key."""
        return {line.key: round(line.value, 4) for line in self.lines}
