"""The arithmetic a meta-step cannot do without, and the rate at which this machine does arithmetic.

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
is two operations. Products count as dense: that V has a rank of at most the number of query examples is not used.
"""

import time
from typing import NamedTuple

import torch

from benchmarks.problem import Problem, layer_shapes

SGEMM_SIZE = 512


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


def measure_rate(threads: int, seconds: float = 1.5) -> dict[str, float]:
    """Return the best rate at which a product of two 512 x 512 float32 matrices runs, in operations a second."""
    torch.set_num_threads(threads)
    a, b = torch.rand(2, SGEMM_SIZE, SGEMM_SIZE, generator=torch.Generator().manual_seed(0))
    result = a @ b
    best = float("inf")
    stop = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < stop:
        torch.mm(a, b, out=result)
        best = min(best, time.perf_counter() - begin)
    return {"operations_per_second": 2 * SGEMM_SIZE**3 / best}
