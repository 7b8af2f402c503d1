"""Run the stages of the graph in DVC processes side by side, then a plain ``dvc repro`` that finds nothing to do."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

from tools.environment import with_this_python

Graph = Mapping[str, Set[str]]
"""For each stage, those that must be done before it."""


def reproduce_side_by_side(root: Path, slots: int, environment: Mapping[str, str]) -> int:
    """Reproduce the pipeline in ``root`` with up to ``slots`` stages at a time; return an exit code.

    A DVC process reproduces some stages, one after the other, and waits for DVC's lock where it needs it. What stages
    print is shown when one fails. Stages must be told in ``environment`` to use a share of the machine only.
    """

    def reproduce(stages: Sequence[str]) -> bool:
        started = time.monotonic()
        done = _dvc(root, ["--wait-for-lock", "repro", "--single-item", *stages], environment, captured=True)
        how = "" if done.returncode == 0 else ", failed"
        print(f"{', '.join(stages)}: {time.monotonic() - started:.1f} s{how}", flush=True)
        if done.returncode:
            print(done.stdout, flush=True)
        return done.returncode == 0

    if not run_in_order(stage_graph(root), reproduce, slots):
        return 1
    return _dvc(root, ["repro"], environment).returncode


def stage_graph(root: Path) -> Graph:
    """Return the pipeline's graph, as DVC states it.

    Raises:
        subprocess.CalledProcessError: DVC cannot read the pipeline.
    """
    text = _dvc(root, ["dag", "--dot"], {}, captured=True, check=True).stdout
    graph: dict[str, set[str]] = {}
    for first, second in re.findall(r'(?m)^"(.+?)"(?: -> "(.+?)")?;$', text):
        graph.setdefault(first, set())
        if second:
            graph.setdefault(second, set()).add(first)
    return graph


def run_in_order(graph: Graph, run: Callable[[Sequence[str]], bool], slots: int) -> bool:
    """Run every stage after all that it needs, by up to ``slots`` calls of ``run`` at a time; return whether all did.

    ``run`` is handed several stages where several are ready, since starting DVC takes longer than many a stage: they
    are dealt out, those first behind which the longest chain of others waits. After a failure no further call is made;
    those that run are waited for.
    """
    behind = _longest_chains_behind(graph)
    waiting = {stage: graph[stage] for stage in sorted(graph, key=lambda stage: -behind[stage])}
    running, done = dict[Future[bool], list[str]](), set[str]()
    failed = False
    with ThreadPoolExecutor(slots) as pool:
        while running or (waiting and not failed):
            ready = [] if failed else [stage for stage, needed in waiting.items() if needed <= done]
            for slot in range(slots - len(running)):
                if stages := ready[slot::slots]:
                    for stage in stages:
                        del waiting[stage]
                    running[pool.submit(run, stages)] = stages
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done.update(running.pop(future))
                failed = failed or not future.result()
    return not failed


def _longest_chains_behind(graph: Graph) -> dict[str, int]:
    """Return for each stage how many stages the longest chain has that must wait for it."""
    behind = dict.fromkeys(graph, 0)
    for stage in reversed(list(TopologicalSorter(graph).static_order())):
        for needed in graph[stage]:
            behind[needed] = max(behind[needed], behind[stage] + 1)
    return behind


def _dvc(
    root: Path, arguments: list[str], environment: Mapping[str, str], captured: bool = False, check: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**with_this_python(), **environment},
        stdout=subprocess.PIPE if captured else None,
        stderr=subprocess.STDOUT if captured else None,
        text=True,
        check=check,
    )
