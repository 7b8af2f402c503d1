"""A stopwatch for functions of a program that is not changed for it."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Seconds by name. In each thread a second counts once: for the innermost function that is timed."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    def timed(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function; its calls are timed under ``name``."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            inner = self._inner()
            inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - began
                own = taken - inner.pop()
                if inner:
                    inner[-1] += taken
                with self._lock:
                    self._seconds[name] += own

        return call

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call, summed over threads, and begin anew."""
        with self._lock:
            found = dict(self._seconds)
            self._seconds.clear()
        return found

    def _inner(self) -> list[float]:
        """Return, for each timed function that runs in this thread, the seconds spent in timed functions within."""
        if not hasattr(self._of_thread, "inner"):
            self._of_thread.inner = []
        stack: list[float] = self._of_thread.inner
        return stack


@contextmanager
def replaced(
    owner: object, name: str, make: Callable[[Callable[..., object]], Callable[..., object]]
) -> Iterator[None]:
    """Put ``make(function)`` in the place of the function ``owner.name`` for the time of the context."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)
