"""A chain as its consumer sees it: what holds for all of it, and the legs that were asked for.

Columns become arrays, and legs structs, when they are asked for: who reads three columns pays for
three. It reads no stream.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from pipeline.entries import Entry
from pipeline.frames import Leg, decode_column, legs_of, open_frame
from pipeline.models import LEG_COLUMNS, ChainHeader, EnrichedChain, contract_symbols
from pipeline.selection import Rows, Selection

_NAMES = tuple(spec.name for spec in LEG_COLUMNS)


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of `LEG_COLUMNS` by name, an element a leg; not to be written to.

    Absent is NaN in a float column and `NULL_INTEGER` in an integer column.
    """

    __slots__ = ("_buffers", "_length", "_made", "_rows")

    def __init__(self, buffers: Mapping[str, bytes], length: int, rows: Rows | None) -> None:
        self._buffers, self._length, self._rows = buffers, length, rows
        self._made: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        column = self._made.get(name)
        if column is None:
            column = decode_column(self._buffers.get(name), name, self._length)
            if self._rows is not None:
                column = column[self._rows]
            self._made[name] = column
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class Chain:
    """An enriched chain, or the legs of it that a selection keeps; `len` says how many.

    `header` speaks of the whole chain, whatever was selected; `entry` is where it came from.
    """

    __slots__ = ("_length", "columns", "entry", "header")

    def __init__(
        self, entry: Entry, header: ChainHeader, columns: Mapping[str, NDArray[Any]]
    ) -> None:
        self.entry, self.header, self.columns = entry, header, columns
        self._length = len(columns["strike"])

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Chain {self.header.chain}, {self._length} legs, entry {self.entry.stream_id}>"

    def legs(self) -> list[Leg]:
        """Each leg as a struct with `symbol` and every column by name; absent is None."""
        return legs_of(EnrichedChain(self.header, self.columns))

    def symbols(self) -> list[str]:
        """The symbol id of each leg, such as `NIFTY-20260127-25000-CE`."""
        return contract_symbols(self.header.chain, self.columns)


def view(entry: Entry, selected: Selection) -> Chain:
    """The chain of an entry of frames, cut to the legs selected. Raises DecodeError."""
    header, buffers = open_frame(entry.data)
    whole = Columns(buffers, header.n, None)
    rows = selected.rows(header, whole)
    return Chain(entry, header, whole if rows is None else Columns(buffers, header.n, rows))
