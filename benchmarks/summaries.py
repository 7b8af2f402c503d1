"""From samples to the figures that are reported."""

import statistics
from collections.abc import Sequence
from typing import Any


def summarise(samples: Sequence[float], unit: str) -> dict[str, float]:
    """Return median, minimum and number of samples, their keys beginning with ``unit``."""
    return {f"{unit}_median": statistics.median(samples), f"{unit}_min": min(samples), "samples": len(samples)}


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
