"""Remove from a traced step the flat vectors that are joined only to be cut up again.

Learners move as one flat vector: gradients of a network's parameters are concatenated, an update rule works on
the vector, and the network cuts the result into parameters. With a vector for every task this moves memory that no
arithmetic needs. Elementwise operations commute with concatenation, so each piece can take its own way; the
compiler then fuses it with the products before and after.
"""

from typing import Any, cast

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
_ELEMENTWISE = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten.neg.default,
}


def cancel_concatenation(graph: GraphModule) -> GraphModule:
    """Rewrite the graph in place: the same operations on the same numbers; return it."""
    for node in list(graph.graph.nodes):
        if node.target == aten.split_with_sizes.default:
            _replace_split(node)
        elif node.target == aten.slice.Tensor:
            _replace_slice(node)
        elif node.target == aten.sum.dim_IntList and not node.kwargs:  # such as the type of the sum
            _move_sum_into_concatenation(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _replace_split(node: Node) -> None:
    source, sizes, dim = _arguments(node, None, None, 0)
    start = 0
    ends = []
    for size in sizes:
        ends.append((start, start + size))
        start += size
    for user in list(node.users):
        _replace_by_piece(user, source, dim, *ends[cast(int, user.args[1])])


def _replace_slice(node: Node) -> None:
    source, dim, start, stop, step = _arguments(node, None, 0, None, None, 1)
    size = _shape(source)[dim]
    if step == 1:
        _replace_by_piece(
            node, source, dim % len(_shape(source)), start or 0, size if stop is None else min(stop, size)
        )


def _replace_by_piece(node: Node, source: Node, dim: int, start: int, stop: int) -> None:
    dim %= len(_shape(source))
    if not _ends_in_concatenation(source, dim, start, stop):
        return
    with node.graph.inserting_before(node):
        piece = _piece(source, dim, start, stop)
    piece.meta.setdefault("val", node.meta["val"])
    node.replace_all_uses_with(piece)


def _ends_in_concatenation(source: Node, dim: int, start: int, stop: int) -> bool:
    """Whether a cut of ``source`` leads through elementwise operations to one operand of a concatenation."""
    if source.target == aten.cat.default:
        return _operand(source, dim, start, stop) is not None
    if _is_elementwise(source):
        return any(
            _ends_in_concatenation(arg, dim - len(_shape(source)) + len(_shape(arg)), start, stop)
            for arg in source.args
            if isinstance(arg, Node) and _spans(arg, source, dim)
        )
    return False


def _is_elementwise(node: Node) -> bool:
    """Whether the operation takes each piece by itself, with nothing but its operands to pass on."""
    return node.target in _ELEMENTWISE and not node.kwargs


def _piece(source: Node, dim: int, start: int, stop: int) -> Node:
    """Return ``source[..., start:stop, ...]`` along ``dim``, taken as early as possible."""
    graph = source.graph
    operand = _operand(source, dim, start, stop) if source.target == aten.cat.default else None
    if operand is not None:
        return operand
    if _is_elementwise(source) and _ends_in_concatenation(source, dim, start, stop):
        args = tuple(
            _piece(arg, dim - len(_shape(source)) + len(_shape(arg)), start, stop)
            if isinstance(arg, Node) and _spans(arg, source, dim)
            else arg
            for arg in source.args
        )
        piece = graph.call_function(cast(Any, source.target), args)
    else:
        piece = graph.call_function(aten.slice.Tensor, (source, dim, start, stop))
    piece.meta["val"] = source.meta["val"].narrow(dim, 0, stop - start)
    return piece


def _operand(concatenation: Node, dim: int, start: int, stop: int) -> Node | None:
    """Return the operand of a concatenation that lies exactly at ``start:stop`` of ``dim``."""
    operands, cat_dim = _arguments(concatenation, (), 0)
    if cat_dim % len(_shape(concatenation)) != dim:
        return None
    position = 0
    for operand in operands:
        size = _shape(operand)[dim]
        if (position, position + size) == (start, stop):
            return cast(Node, operand)
        position += size
    return None


def _move_sum_into_concatenation(node: Node) -> None:
    """Replace ``sum(cat(pieces))`` by ``cat(sum(piece) ...)`` where the sum keeps the concatenated axis."""
    source, dims, keep = _arguments(node, None, [], False)
    if source.target != aten.cat.default:
        return
    rank = len(_shape(source))
    operands, cat_dim = _arguments(source, (), 0)
    cat_dim %= rank
    reduced = {dim % rank for dim in dims}
    if not reduced or cat_dim in reduced:
        return
    new_dim = cat_dim if keep else cat_dim - sum(dim < cat_dim for dim in reduced)
    with node.graph.inserting_before(node):
        sums = [node.graph.call_function(aten.sum.dim_IntList, (operand, dims, keep)) for operand in operands]
        joined = node.graph.call_function(aten.cat.default, (sums, new_dim))
    for part, operand in zip(sums, operands, strict=True):
        part.meta["val"] = torch.ops.aten.sum.dim_IntList(operand.meta["val"], dims, keep)
    joined.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(joined)


def _arguments(node: Node, *defaults: Any) -> tuple[Any, ...]:
    """Return a node's positional arguments, those not given by their defaults."""
    return (*node.args, *defaults[len(node.args) :])


def _spans(arg: Node, result: Node, dim: int) -> bool:
    """Whether an operand has the axis ``dim`` of the result itself, instead of being broadcast along it."""
    own = dim - len(_shape(result)) + len(_shape(arg))
    return own >= 0 and bool(_shape(arg)[own] == _shape(result)[dim])


def _shape(node: Node) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape
