"""Run the stages of the graph side by side, then one plain ``dvc repro`` that checks that nothing is left to do."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tools.environment import with_this_python

Graph = Mapping[str, Set[str]]
"""For each stage, those that must be done before it."""


def reproduce_side_by_side(root: Path, slots: int, environment: Mapping[str, str]) -> int:
    """Reproduce the pipeline in ``root`` with up to ``slots`` stages at a time; return an exit code.

    Each stage is reproduced by a DVC process of its own that waits for DVC's lock where it needs it. What stages
    print is shown when one fails. Stages must be told in ``environment`` to use a share of the machine only.
    """

    def reproduce(stage: str) -> bool:
        started = time.monotonic()
        done = _dvc(root, ["--wait-for-lock", "repro", "--single-item", stage], environment, captured=True)
        print(f"{stage}: {time.monotonic() - started:.1f} s{'' if done.returncode == 0 else ', failed'}", flush=True)
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


def run_in_order(graph: Graph, run: Callable[[str], bool], slots: int) -> bool:
    """Call ``run`` for every stage after all that it needs, up to ``slots`` at a time; return whether all went well.

    After a failure no further stage is started; those that run are waited for.
    """
    waiting, running, done = dict(graph), dict[Future[bool], str](), set[str]()
    failed = False
    with ThreadPoolExecutor(slots) as pool:
        while running or (waiting and not failed):
            ready = [] if failed else [stage for stage, needed in waiting.items() if needed <= done]
            for stage in ready[: slots - len(running)]:
                del waiting[stage]
                running[pool.submit(run, stage)] = stage
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done.add(running.pop(future))
                failed = failed or not future.result()
    return not failed


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
