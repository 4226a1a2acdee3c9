"""Medians of short arrays, without sorting more than needed."""

import numpy as np

from pipeline.kernels.compiling import Floats, Integers, kernel


@kernel
def ordered_places(values: Floats, first: int, count: int) -> Integers:
    """The places of `count` values from `first` on, by value ascending; by insertion, for a few."""
    order = np.empty(count, np.int64)
    for i in range(count):
        j = i
        while j > 0 and values[order[j - 1]] > values[first + i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = first + i
    return order


@kernel
def median_place(values: Floats, first: int, count: int) -> int:
    """The place of the median of `count` values from `first` on, the upper of an even number."""
    place: int = ordered_places(values, first, count)[count // 2]
    return place


@kernel
def weighted_median(values: Floats, weights: Floats) -> float:
    """The value at which half of the weight is reached; NaN without weight."""
    total = 0.0
    for weight in weights:
        total += weight
    reached = 0.0
    for place in ordered_places(values, 0, values.size):
        reached += weights[place]
        if reached >= 0.5 * total:
            median: float = values[place]
            return median
    return np.nan


@kernel
def upper_median(values: Floats) -> float:
    """The middle value, the upper of an even number; reorders what it is given."""
    return select(values, values.size // 2)


@kernel
def lower_median(values: Floats) -> float:
    """The middle value, the lower of an even number, NaN of none; reorders what it is given."""
    return select(values, (values.size - 1) // 2) if values.size > 0 else np.nan


@kernel
def select(values: Floats, rank: int) -> float:
    """The value of that rank, from 0, by quickselect; reorders what it is given."""
    low, high = 0, values.size - 1
    while low < high:  # narrowed to the part of the order that holds the rank
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    selected: float = values[rank]
    return selected
