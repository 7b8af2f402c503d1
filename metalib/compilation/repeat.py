"""What repeats a step over a chunk of data: the eager reference, or a compiled program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Step = Callable[[Any, Any], tuple[Any, Tensor]]
"""``(state, data of one step) -> (state, output)``; pure, trees of tensors."""
Program = Callable[[Any, Any], tuple[Any, Tensor]]
"""``(state, data [steps, ...]) -> (state, outputs [steps, ...])``"""
Backend = Callable[[Step, Any, Any], Program]
"""``(step, example state, example data of one step) -> program``"""


@dataclass(frozen=True)
class PythonLoop:
    """The program that calls ``step`` in a Python loop."""

    step: Step

    def __call__(self, state: Any, data: Any) -> tuple[Any, Tensor]:
        """Return the state after all steps of ``data`` ``[steps, ...]``, and their outputs, stacked."""
        outputs = []
        for index in range(len(tree_leaves(data)[0])):
            state, output = self.step(state, at(data, index))
            outputs.append(output)
        return state, torch.stack(outputs)


def repeat_eagerly(step: Step, state: Any, data: Any) -> Program:
    """Return the program that calls ``step`` in a Python loop; the examples are not used."""
    return PythonLoop(step)


def at(data: Any, index: int) -> Any:
    """Return the data of one step of a chunk ``[steps, ...]``."""
    return tree_map(lambda leaf: leaf[index], data)
