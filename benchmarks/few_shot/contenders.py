"""The programs that are compared: each moves a training state by meta-steps of one problem."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.few_shot.problem import Problem
from benchmarks.few_shot.torch_layers import MetaGradient, by_loop, by_vmap
from metalib.compilation import compile_scan, repeat_eagerly
from metalib.compilation.repeat import Program, Step, at
from metalib.losses import Episode
from metalib.meta_training.supervised import MetaStep, TrainingState
from metalib.update_rules import LSTMRule, UpdateRule
from metalib.update_rules.fused_lstm import fused


@dataclass(frozen=True)
class Contender:
    """One way to do a meta-step.

    Args:
        label: its name in tables.
        step: of the problem and a folder for what it compiles.
        in_one_program: whether the loop over meta-steps is compiled.
        needs_compiler: whether it needs a C++ compiler that works with PyTorch.
    """

    label: str
    step: Callable[[Problem, Path], Step]
    in_one_program: bool = False
    needs_compiler: bool = False

    def prepare(self, problem: Problem, state: TrainingState, episodes: Episode, folder: Path) -> Program:
        """Return the program for states and episodes of these shapes."""
        step = self.step(problem, folder)
        if self.in_one_program:
            return compile_scan(step, state, at(episodes, 0), folder)
        return repeat_eagerly(step, state, at(episodes, 0))


def _metalib(problem: Problem, folder: Path) -> Step:
    return step_with_rule(problem, problem.rule)


def _metalib_fused(problem: Problem, folder: Path) -> Step:
    assert isinstance(problem.rule, LSTMRule)
    return step_with_rule(problem, fused(problem.rule, folder))


def step_with_rule(problem: Problem, rule: UpdateRule) -> Step:
    """Return metalib's meta-step, with a rule that computes what the problem's does."""
    return MetaStep(problem.objective(rule), problem.adam)


def _torch_vmap(problem: Problem, folder: Path) -> Step:
    return _with_gradient(problem, by_vmap(problem))


def _torch_loop(problem: Problem, folder: Path) -> Step:
    return _with_gradient(problem, by_loop(problem))


def _with_gradient(problem: Problem, gradient: MetaGradient) -> Step:
    """Return the meta-step around another meta-gradient; Adam, the same for all, takes a thousandth of the time."""

    def step(state: TrainingState, data: Any) -> tuple[TrainingState, Tensor]:
        found, losses = gradient(state.phi, data)
        phi, adam_state = problem.adam.update(found, state.adam, state.phi)
        return TrainingState(phi, adam_state), losses

    return step


CONTENDERS = {
    "metalib_compiled": Contender("metalib, compiled", _metalib, in_one_program=True, needs_compiler=True),
    "metalib_eager": Contender("metalib, eager: vmap over episodes", _metalib),
    "torch_vmap": Contender("PyTorch's layers, vmap over episodes", _torch_vmap),
    "torch_loop": Contender("PyTorch's layers, autograd, a loop over episodes", _torch_loop),
    "lstm_fused": Contender("fused kernel", _metalib_fused, needs_compiler=True),
    "lstm_plain": Contender("plain rule", _metalib),
}
OF_METHOD = {
    "maml": ("metalib_compiled", "metalib_eager", "torch_vmap", "torch_loop"),
    "lstm": ("lstm_fused", "lstm_plain"),
}
"""Contenders of each method. The last is what the others are compared with and, in float64, held to."""
