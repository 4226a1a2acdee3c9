"""What a bench gives: lines for a person, figures for a program."""

import msgspec


class MissingPeer(Exception):
    """Something a bench measures against is not installed; the message names it."""


class Line(msgspec.Struct, frozen=True):
    """One line of the table. `key` is its name in the JSON object; `target` what it ought to be."""

    key: str
    name: str
    value: float
    unit: str
    digits: int = 0
    target: str = ""


class Column(msgspec.Struct, frozen=True):
    """One column of a grid: its name in the JSON object, its head, how its values are written."""

    key: str
    head: str
    form: str = ",.0f"


class Grid(msgspec.Struct, frozen=True):
    """A further table: for each row the values of some of the columns.

    With a `key` it is one object of the JSON object, which has an object for each row.
    """

    title: str
    columns: tuple[Column, ...]
    rows: dict[str, dict[str, float]]
    caption: str = ""
    key: str = ""

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """The values by row and column; whole numbers stay whole."""
        return {
            row: {
                key: value if isinstance(value, int) else float(f"{value:.5g}")
                for key, value in values.items()
            }
            for row, values in self.rows.items()
        }


Figures = dict[str, float | dict[str, dict[str, float]]]


class Report(msgspec.Struct, frozen=True):
    """A bench's result."""

    title: str
    caption: str
    lines: list[Line]
    grids: list[Grid] = []

    @property
    def figures(self) -> Figures:
        """The values by key; those of grids by row and column, or under the grid's own key."""
        found: Figures = {line.key: round(line.value, 4) for line in self.lines}
        for grid in self.grids:
            if grid.key:
                found[grid.key] = grid.values
                continue
            found |= {
                f"{row}_{key}": value
                for row, values in grid.values.items()
                for key, value in values.items()
            }
        return found
