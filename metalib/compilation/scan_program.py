"""Compile ``n`` steps of ``(state, data) -> (state, output)`` into one program without Python in its loop."""

import hashlib
import os
import shlex
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from metalib.compilation import native, small_matmul
from metalib.compilation.errors import CompilationError
from metalib.compilation.native import compiler
from metalib.compilation.repeat import Program, Step, repeat_eagerly
from metalib.compilation.tracing import trace

_VERSION = "1"  # part of the cache's key; to be raised when this file changes what is compiled
_MOST_STEPS = 1_000_000


def can_compile(folder: Path) -> bool:
    """Whether programs can be compiled here, see :func:`obstacle`; the first answer takes a second."""
    return obstacle(folder) is None


def obstacle(folder: Path) -> str | None:
    """Return why programs cannot be compiled here and kept in ``folder``; None if they can."""
    cxx = compiler()
    if cxx is None:
        return native.NO_COMPILER
    for path in (Path(torch.__file__).parent, folder.resolve()):
        if shlex.quote(str(path)) != str(path):
            return f"PyTorch cannot compile where a path holds a space, a quote or the like: {path}"
    if not small_matmul.load_kernel(folder, cxx):
        return f"the C++ compiler {cxx} does not build against PyTorch"
    return None


def compile_scan(step: Step, state: Any, data: Any, folder: Path) -> Program:
    """Return ``step`` repeated over the leading axis of its data, as one compiled program for one CPU thread.

    The step is traced once into tensor operations (autograd, vmap and all), products of small matrices
    are replaced by a kernel made for them, and the whole loop is compiled ahead of time. The program is
    kept in ``folder`` under a key of everything it depends on, so that a later process only loads it.

    Args:
        step: one step; must be pure, and its control flow must not depend on tensor values.
        state: an example of the state.
        data: an example of the data of one step, without the axis of steps.
        folder: where programs are kept between runs.

    Raises:
        CompilationError: nothing can be compiled here (see :func:`obstacle`), or not this step.
    """
    reason = obstacle(folder)
    if reason is not None:
        raise CompilationError(f"{reason}; or set backend: eager in machine.yaml")
    # Cloned: an example may hold one tensor twice, which the tracer would take for one value.
    leaves, tree = tree_flatten(tree_map(torch.clone, (state, data)))
    n_state = len(tree_flatten(state)[0])
    graph = trace(step, leaves, tree)
    _refuse_equal_results(graph)
    path = folder / f"{_key(graph, leaves)}.pt2"
    if not path.exists():
        try:
            _compile(graph, leaves[:n_state], leaves[n_state:], path)
        except Exception as error:  # the compiler's own errors have no common class
            raise CompilationError.of(error) from error
    package = torch._inductor.aoti_load_package(str(path), run_single_threaded=True)
    state_tree = tree_flatten(state)[1]

    def program(state: Any, data: Any) -> tuple[Any, Tensor]:
        if len(tree_leaves(data)[0]) == 1:  # PyTorch's export takes 1 for a constant, not for a length
            return repeat_eagerly(step, state, data)(state, data)
        *new_state, outputs = package.loader.boxed_run([*tree_flatten(state)[0], *tree_flatten(data)[0]])
        return tree_unflatten(new_state, state_tree), outputs

    return program


def _refuse_equal_results(graph: GraphModule) -> None:
    """Refuse a step that returns one value twice: PyTorch 2.13 would give both one buffer and crash when it runs.

    Values are told apart by how they are computed: equal operations on equal values are equal.
    """
    copies = {torch.ops.aten.clone.default, torch.ops.aten.alias.default, torch.ops.aten.detach.default}
    values: dict[Node, Any] = {}

    def value(item: Any) -> Any:
        return values.get(item, item) if isinstance(item, Node) else repr(item)

    for node in graph.graph.nodes:
        if node.target in copies:
            values[node] = value(node.args[0])
        elif node.op == "call_function":
            arguments = tree_map(value, (list(node.args), dict(node.kwargs)), is_leaf=lambda x: isinstance(x, Node))
            values[node] = hashlib.sha256(repr((str(node.target), arguments)).encode()).hexdigest()
        else:
            values[node] = node.name
    results = [values[node] for node in next(iter(graph.graph.find_nodes(op="output"))).args[0]]
    for index, result in enumerate(results):
        if result in results[:index]:
            raise CompilationError(f"the step returns one value twice, as results {results.index(result)} and {index}")


def _key(graph: GraphModule, leaves: list[Tensor]) -> str:
    """Return a hash of all that the compiled program depends on."""
    constants = [(name, value.tolist()) for name, value in sorted(graph.named_buffers())]
    signature = [(tuple(leaf.shape), leaf.stride(), str(leaf.dtype)) for leaf in leaves]
    parts = (_VERSION, graph.code, constants, signature, torch.__version__, small_matmul.machine_key())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


class _Scan(nn.Module):
    """The loop over steps, as PyTorch's compiler takes it."""

    def __init__(self, graph: GraphModule, n_state: int) -> None:
        super().__init__()
        self.graph = graph
        self.n_state = n_state

    def forward(self, state: tuple[Tensor, ...], data: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        def body(carry: list[Tensor], now: list[Tensor]) -> tuple[list[Tensor], Tensor]:
            results = self.graph(*carry, *now)
            # Cloned, because scan refuses outputs that alias its inputs.
            return [result.clone() for result in results[: self.n_state]], results[self.n_state].clone()

        carry, outputs = scan(body, list(state), list(data), dim=0)
        return (*carry, outputs)


def _compile(graph: GraphModule, state: list[Tensor], data: list[Tensor], path: Path) -> None:
    example = tuple(leaf.expand(3, *leaf.shape).contiguous() for leaf in data)
    steps = torch.export.Dim("steps", min=2, max=_MOST_STEPS)
    shapes = ((None,) * len(state), tuple({0: steps} for _ in example))
    shims = {torch.ops.metalib.small_matmul.default: [small_matmul.SHIM]}
    settings: dict[str, Any] = {"cpp.threads": 1, "aot_inductor.custom_ops_to_c_shims": shims}
    partial = path.with_suffix(f".{os.getpid()}.pt2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), torch._inductor.config.patch(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its own internals
        program = torch.export.export(
            _Scan(graph, len(state)), (tuple(state), example), dynamic_shapes=shapes, strict=False
        )
        torch._inductor.aoti_compile_and_package(program, package_path=str(partial))
    partial.replace(path)
