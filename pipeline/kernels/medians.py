"""Medians of short arrays, without sorting more than needed."""

import numpy as np

from pipeline.kernels.compiling import Floats, kernel


@kernel
def median_place(values: Floats, first: int, count: int) -> int:
    """The place of the median of `count` values from `first` on; for a few, by insertion."""
    order = np.empty(count, np.int64)
    for i in range(count):
        j = i
        while j > 0 and values[order[j - 1]] > values[first + i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = first + i
    place: int = order[count // 2]
    return place


@kernel
def median(values: Floats) -> float:
    """The middle value, by quickselect; reorders what it is given."""
    first, last, wanted = 0, values.size - 1, values.size // 2
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            last = j
        elif wanted >= i:
            first = i
        else:
            break
    middle: float = values[wanted]
    return middle
