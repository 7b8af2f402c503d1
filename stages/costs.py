"""What the stages took, as a table at the end of a run."""

from rich.console import Console
from rich.table import Table

from metalib.storage import read_json
from stages.running import LOGS


def print_costs() -> None:
    """Print time and peak memory of each stage, as last run here; newest last."""
    logs = sorted(LOGS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    costs = [read_json(path) for path in logs]
    table = Table("stage, as last run here", title="cost")
    table.add_column("seconds", justify="right")
    table.add_column("peak memory of a process, MB", justify="right")
    for cost in costs:
        table.add_row(cost["stage"], f"{cost['seconds']:.1f}", f"{cost['peak_memory_mb']:,}")
    table.add_section()
    table.add_row("sum", f"{sum(c['seconds'] for c in costs):.1f}", "")
    Console().print(table)
