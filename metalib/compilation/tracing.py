"""A step as a graph of tensor operations, autograd and vmap worked out: what compilers are given."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from metalib.compilation import small_matmul
from metalib.compilation.cancel_concatenation import cancel_concatenation
from metalib.compilation.repeat import Step


def trace(step: Step, leaves: list[Tensor], tree: Any) -> GraphModule:
    """Return the step as a graph of tensor operations on the leaves of (state, data)."""

    def flat(*values: Tensor) -> list[Tensor]:
        state, data = tree_unflatten(list(values), tree)
        return list(tree_flatten(step(state, data))[0])

    aten = torch.ops.aten
    table: dict[Any, Any] = {aten.mm.default: _product, aten.bmm.default: _product, aten.pow.Tensor_Scalar: _power}
    return cancel_concatenation(make_fx(flat, decomposition_table=table)(*leaves))


def _thin_product(a: Tensor, b: Tensor) -> Any:
    """Return a product with a side of 1 as multiplication and sum, which fuse with their neighbours."""
    if a.shape[-1] == 1:
        return a * b
    if b.shape[-1] == 1:
        return (a * b.mT).sum(-1, keepdim=True)
    if a.shape[-2] == 1:
        return (a.mT * b).sum(-2, keepdim=True)
    return NotImplemented


def _product(a: Tensor, b: Tensor) -> Any:
    """Return a product as :func:`_thin_product` or through the kernel for small matrices."""
    thin = _thin_product(a, b)
    if thin is not NotImplemented or not small_matmul.fits(a, b):
        return thin
    if a.ndim == 2:
        return small_matmul.small_matmul(a[None], b[None])[0]
    return small_matmul.small_matmul(a, b)


def _power(base: Tensor, exponent: float) -> Any:
    """Return the powers that squares and their derivatives need without a call of pow."""
    if exponent == 1:
        return base
    return base * base if exponent == 2 else NotImplemented
