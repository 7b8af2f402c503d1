"""Numbers in sentences."""

from collections.abc import Iterable


def counted(numbers: Iterable[int], noun: str) -> str:
    """Return how many there are of a noun, e.g. "1 seed", "2 seeds", or "1 to 3 seeds" where the numbers differ."""
    low, high = min(numbers := list(numbers)), max(numbers)
    return f"{low if low == high else f'{low} to {high}'} {noun}{'s' * (high != 1)}"


def either(numbers: Iterable[int]) -> str:
    """Return the different numbers in order, e.g. "20" or "20 or 40"."""
    return " or ".join(str(number) for number in sorted(set(numbers)))
