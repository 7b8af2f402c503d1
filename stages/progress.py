"""Progress of long work: bars with rate and remaining time in a terminal, a line now and then elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


class _RateColumn(TextColumn):
    """Steps a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: object) -> Text:
        speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
        return Text(f"{speed:,.0f}/s" if speed else "")


class Bars:
    """One bar for each named piece of work; use as a context manager."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        self._progress = Progress(
            *columns,
            _RateColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._totals: dict[str, int] = {}
        self._restored: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._details: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._started = self._last_line = time.monotonic()

    def add(self, name: str, total: int) -> None:
        """Announce a piece of work of ``total`` units."""
        self._totals[name], self._done[name] = total, 0
        self._tasks[name] = self._progress.add_task(name, total=total)

    def advance(self, name: str, done: int, detail: str = "") -> None:
        """Say that ``done`` units of the piece are done so far, and in ``detail`` how it goes."""
        if name not in self._restored:  # what a job says first is what it found done
            self._restored[name] = done
        self._done[name] = done
        self._details[name] = detail
        self._progress.update(self._tasks[name], completed=done, description=f"{name} {detail}".rstrip())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(self._line(now - self._started), highlight=False)

    def _line(self, elapsed: float) -> str:
        done, total = sum(self._done.values()), sum(self._totals.values())
        rate = (done - sum(self._restored.values())) / elapsed
        remaining = f"{(total - done) / rate:.0f} s" if rate else "unknown time"
        details = "".join(f"; {name}: {detail}" for name, detail in self._details.items() if detail)
        return f"  {done:,} of {total:,} {self._unit}, {rate:,.1f}/s, {remaining} remaining{details}"

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
