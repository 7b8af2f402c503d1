"""From samples to the figures that are reported."""

import statistics
from collections.abc import Sequence
from typing import Any


def summarise(samples: Sequence[float], unit: str) -> dict[str, float]:
    """Return median, minimum and number of samples, their keys beginning with ``unit``."""
    return {f"{unit}_median": statistics.median(samples), f"{unit}_min": min(samples), "samples": len(samples)}


def summarise_processes(processes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one contender from what each of its processes measured, the first of which compiled."""
    later = [each["prepare_s"] for each in processes[1:]]
    return {
        **summarise([sample for each in processes for sample in each["samples_ms"]], "ms"),
        "prepare_first_s": processes[0]["prepare_s"],
        "prepare_later_s": statistics.median(later) if later else None,
        "peak_resident_mib": min(each["peak_resident_mib"] for each in processes),
        "largest_deviation": max(each["largest_deviation"] for each in processes),
    }


def ratio(value: float | None, to: float | None) -> float | None:
    """Return the quotient; None if either is missing."""
    return None if value is None or to is None else value / to


def rounded(data: Any, digits: int = 5) -> Any:
    """Return plain data with every float at ``digits`` significant digits."""
    if isinstance(data, float):
        return float(f"{data:.{digits}g}")
    if isinstance(data, dict):
        return {key: rounded(value, digits) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value, digits) for value in data]
    return data
