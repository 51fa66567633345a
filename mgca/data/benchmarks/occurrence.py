"""Which ids occur in the masks of a set, and which mistakes that gives away.

A mask alone seldom tells what its ids mean: COCO-Object's 0 to 80 are ids of COCO-Stuff as well.
All masks of a set together do.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mgca.data.benchmarks import Benchmark
from mgca.data.masks import IGNORE

_FEWEST = 5  # masks from which on numbers without a gap are no coincidence


def describe(present: Sequence[Sequence[int]], benchmark: Benchmark) -> str:
    """One line: the ids that occur in some masks, and those of the benchmark that never do.

    Args:
        present: The ids that occur in each mask, sorted.
        benchmark: The benchmark whose masks these are.
    """
    counts = Counter(number for ids in present for number in ids)
    line = f"ids that occur: {as_ranges(sorted(counts)) or 'none'}"
    absent = [number for number in benchmark.class_ids if not counts[number]]
    if absent:
        line += f"; classes that never do: {as_ranges(absent)}, "
        line += f"{len(absent)} of {len(benchmark.class_ids)}"
    return line


def mistakes(
    present: Sequence[Sequence[int]], benchmark: Benchmark, *, whole: bool, part: bool
) -> Iterator[tuple[str, str]]:
    """(kind, what was seen) of each sign that the ids mean something else than they should.

    Args:
        present: The ids that occur in each mask, sorted.
        benchmark: The benchmark whose masks these should be.
        whole: Whether these are all masks of the official split, in which each class occurs.
        part: Whether these are only the first masks of those that are there.
    """
    if not present:
        return
    seen = {number for ids in present for number in ids}
    classes = benchmark.class_ids
    absent = [number for number in classes if number not in seen]
    if (whole and absent) or (len(absent) == len(classes) and not part):
        yield (
            "classes that never occur",
            f"{as_ranges(absent)} in none of {len(present)} masks, which hold "
            f"{as_ranges(sorted(seen))}",
        )
    first, last = benchmark.common_ids
    common = sum(any(first <= number <= last for number in ids) for ids in present)
    if 2 * common < len(present):
        name = as_ranges(range(first, last + 1))
        yield (
            "ids of another set",
            f"{common} of {len(present)} masks hold an id of {name}, and nearly all should",
        )
    if len(present) >= _FEWEST and max(seen - {IGNORE}, default=0) > 1 and _numbered(present):
        yield (
            "numbers of objects",
            f"in each of {len(present)} masks the ids count from 1 without a gap",
        )


def _numbered(present: Sequence[Sequence[int]]) -> bool:
    """Whether the ids of every mask are 1 to the number of them, but for 0 and 255."""
    objects = ([number for number in ids if number not in (0, IGNORE)] for ids in present)
    return all(ids == list(range(1, len(ids) + 1)) for ids in objects)


def as_ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers in words: ``"0, 3 to 7"``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)
