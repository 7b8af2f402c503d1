"""The arithmetic of a meta-step with weights of each task's own, and the rate at which this machine does arithmetic.

Counted are the multiply-adds of matrix products, of the algorithm as `benchmarks.by_hand` derives it; elementwise work,
sums and memory count nothing, so a real program takes longer. With layers of d_(l-1) inputs and d_l outputs, let

    all = sum over all layers of d_(l-1) d_l,    later = the same without the first layer,

for the first layer's inputs need no derivative. An example then takes, in multiply-adds:

    what                                    products                            multiply-adds
    forward                                 A W'                                all
    backward                                D' A;  D W                          all + later
    H v, forward                            A V';  R A W'                       all + later
    H v, backward to the weights            R D' A;  D' R A                     all + later
    H v, backward to the outputs            R D W;  D V                         2 later

A support example meets all of these once an inner step, a query example the first two once a meta-step. A multiply-add
is two operations. Products count as dense. metalib's kernel uses that a task's weights differ from the shared ones by
a matrix of low rank, as V is one, and needs fewer where layers are wide.
"""

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.problem import Problem, layer_shapes
from metalib.compilation import native

MATRIX_SIZE = 512


class Counts(NamedTuple):
    """Multiply-adds of one meta-step by what they are for; all tasks and seeds together."""

    inner_forward: int
    inner_backward: int
    query_forward: int
    query_backward: int
    second_order: int

    @property
    def total(self) -> int:
        """Multiply-adds of one meta-step."""
        return sum(self)

    @property
    def operations(self) -> int:
        """Floating-point operations of one meta-step."""
        return 2 * self.total


def count(problem: Problem) -> Counts:
    """Return the multiply-adds of one meta-step; the module's table says of which products."""
    products = [n_out * n_in for n_out, n_in in layer_shapes(problem)]
    every, later = sum(products), sum(products[1:])
    tasks = problem.tasks * problem.seeds
    inner = tasks * problem.support * problem.inner_steps
    query = tasks * problem.query
    return Counts(
        inner_forward=inner * every,
        inner_backward=inner * (every + later),
        query_forward=query * every,
        query_backward=query * (every + later),
        second_order=inner * (2 * every + 4 * later),
    )


def floor_ms(problem: Problem, operations_per_second: float) -> float:
    """Return the milliseconds that the arithmetic of one meta-step takes at a rate."""
    return 1e3 * count(problem).operations / operations_per_second


def measure_rate(threads: int, folder: str, seconds: float = 1.5) -> float:
    """Return the best rate of float32 arithmetic, in operations a second, of all threads together.

    That of multiply-adds in registers, which no program exceeds, or without a C++ compiler that of a product of two
    512 x 512 matrices.
    """
    torch.set_num_threads(threads)
    run = _multiply_adds(threads, Path(folder)) or _matrix_product()
    best = 0.0
    stop = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < stop:
        best = max(best, run() / (time.perf_counter() - begin))
    return best


def _multiply_adds(threads: int, folder: Path) -> Callable[[], float] | None:
    """Return what multiplies and adds in registers on every thread, and returns how many operations that took."""
    cxx = native.compiler()
    library = None if cxx is None else native.load(Path(__file__).with_name("fma_rate.cpp"), folder, cxx)
    if library is None:
        return None
    library.multiply_add.restype = ctypes.c_double
    numbers = [(ctypes.c_float * 24)(*range(24)) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def run() -> float:
        return float(sum(pool.map(lambda mine: library.multiply_add(ctypes.c_int64(500_000), mine), numbers)))

    return run


def _matrix_product() -> Callable[[], float]:
    """Return what multiplies two matrices, and returns how many operations that took."""
    a, b = torch.rand(2, MATRIX_SIZE, MATRIX_SIZE, generator=torch.Generator().manual_seed(0))
    result = a @ b

    def run() -> float:
        torch.mm(a, b, out=result)
        return 2.0 * MATRIX_SIZE**3

    return run
