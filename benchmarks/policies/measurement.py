"""What a measuring process does for one case of :mod:`benchmarks.policy_meta_step`."""

from typing import Any

from benchmarks.machine import peak_resident_mib
from benchmarks.policies.cases import case_named
from benchmarks.policies.race import race, summarise_race
from benchmarks.policies.split import split_meta_steps, summarise_split


def meta_step(name: str, quick: bool, repeats: int, threads: int, beside_plain_loop: bool = True) -> dict[str, Any]:
    """Measure whole meta-steps of a case, then its adaptation and outer step beside the plain loop.

    Returns:
        what :func:`summarise_split` returns, peak_resident_mib of the process up to then, and under ``plain_loop``
        what :func:`summarise_race` returns.
    """
    case = case_named(name, quick)
    found = summarise_split(split_meta_steps(case, repeats, threads))
    found["peak_resident_mib"] = peak_resident_mib()
    if beside_plain_loop:
        found["plain_loop"] = summarise_race(race(case, repeats, threads))
    return found
