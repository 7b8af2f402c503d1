"""Work side by side in threads of one process, for pieces large enough that PyTorch or MuJoCo leave Python alone."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Return the function's values in the order of the items, which ``threads`` threads work on.

    Each piece runs on one thread of its own, whatever their number, so that no sum is split differently.
    """

    def alone(item: Item) -> Result:
        torch.set_num_threads(1)  # holds for the thread that asks
        return function(item)

    with _restored_threads():
        if threads == 1:
            return [alone(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, items))


@contextmanager
def _restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
