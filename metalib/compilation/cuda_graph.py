"""Repeat a step on a CUDA device: compiled, recorded once as a CUDA graph, and replayed.

A small learner's kernels run for less time than Python takes to start them; a replay starts all of a step at once.
:func:`record_cuda_graph` has not been run on a GPU yet. All else here is tested on the CPU too.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils._triton import has_triton_package

from metalib.compilation.errors import CompilationError
from metalib.compilation.repeat import Program, Step
from metalib.compilation.tracing import trace

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""What is given work on fixed buffers and returns what does that work again."""

_WARM_UPS = 3
"""Runs before a recording, in which the step is compiled and libraries make their workspaces."""


_LEAST_CAPABILITY = (7, 0)
"""Of a CUDA device that Triton compiles for."""


def cuda_graph_obstacle() -> str | None:
    """Return why steps cannot be compiled for the CUDA device; None if they can."""
    if not has_triton_package():
        return "PyTorch finds no Triton, which compiles for CUDA devices: pip install triton"
    if torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return f"Triton compiles for CUDA devices of capability {_LEAST_CAPABILITY[0]}.{_LEAST_CAPABILITY[1]} and newer"
    if not any(name and shutil.which(name) for name in (os.environ.get("CC"), "gcc", "clang", "cc")):
        return "no C compiler found, which Triton needs: install gcc or clang"
    return None


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of ``work``, recorded as a CUDA graph.

    What came before on the current stream is done first; ``work`` is run a few times before it is recorded.
    """
    stream = torch.cuda.Stream()  # one for both: libraries keep their workspaces by stream
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


def replay_steps(step: Step, state: Any, data: Any, folder: Path, record: Record = record_cuda_graph) -> Program:
    """Return ``step`` repeated over the leading axis of its data, by replaying one compiled and recorded step.

    The program compiles and records when it is first run, for chunks of that length and shorter ones.

    Args:
        step: one step; must be pure, and its control flow must not depend on tensor values.
        state: an example of the state, on the device.
        data: an example of the data of one step, without the axis of steps, on the device.
        folder: where compiled code is kept between runs.
        record: how a step is recorded.

    Raises:
        CompilationError: by the program, when it is first run: the step cannot be compiled or recorded.
    """
    # Cloned: an example may hold one tensor twice, which the tracer would take for one value.
    leaves, tree = tree_flatten(tree_map(torch.clone, (state, data)))
    graph, state_tree = trace(step, leaves, tree), tree_flatten(state)[1]
    tape: _Tape | None = None

    def program(state: Any, data: Any) -> tuple[Any, Tensor]:
        nonlocal tape
        given, chunk = tree_leaves(state), tree_leaves(data)
        if tape is None or len(chunk[0]) > tape.room:
            try:
                with _compiled_code_in(folder):
                    tape = _Tape(graph, given, chunk, record)
            except Exception as error:  # the compiler's own errors have no common class
                raise CompilationError.of(error) from error
        new_state, outputs = tape.play(given, chunk)
        return tree_unflatten(new_state, state_tree), outputs

    return program


class _Tape:
    """The buffers of a chunk, which a recording reads and writes, and the replay of one step on them."""

    @torch.no_grad()
    def __init__(self, graph: GraphModule, state: list[Tensor], chunk: list[Tensor], record: Record) -> None:
        self.room = len(chunk[0])
        self._state = [leaf.clone() for leaf in state]
        self._chunk = [leaf.clone() for leaf in chunk]
        example = graph(*state, *(leaf[0] for leaf in chunk))[-1]
        self._outputs = example.new_zeros(self.room, *example.shape)
        self._position = torch.zeros(1, dtype=torch.int64, device=example.device)
        # Of numbers alone: PyTorch 2.13 loses what compiled code writes to a scalar that it was given.
        self._step = torch.compile(graph, fullgraph=True, dynamic=False)
        self._replay = record(self._advance)

    @torch.no_grad()
    def play(self, state: list[Tensor], chunk: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the state after all steps of ``chunk``, at most ``room``, and their outputs ``[steps, ...]``."""
        steps = len(chunk[0])
        for buffer, leaf in zip(self._state, state, strict=True):
            buffer.copy_(leaf)
        for buffer, leaf in zip(self._chunk, chunk, strict=True):
            buffer[:steps].copy_(leaf)
        self._position.zero_()
        for _ in range(steps):
            self._replay()
        return [buffer.clone() for buffer in self._state], self._outputs[:steps].clone()

    def _advance(self) -> None:
        """Do the step at the position, whatever it is, and move on; a recording holds no number of its own."""
        now = [leaf.index_select(0, self._position).squeeze(0) for leaf in self._chunk]
        *state, output = self._step(*self._state, *now)
        self._outputs.index_copy_(0, self._position, output[None])  # before the state, of which it may be a part
        # So may a result be: it is copied before another one overwrites it.
        state = [result.clone() if self._is_in_buffers(result) else result for result in state]
        for buffer, result in zip(self._state, state, strict=True):
            buffer.copy_(result)
        self._position.add_(1).remainder_(self.room)  # so that runs before a recording stay within the buffers

    def _is_in_buffers(self, result: Tensor) -> bool:
        memory = result.untyped_storage().data_ptr()
        return any(memory == buffer.untyped_storage().data_ptr() for buffer in self._state)


@contextmanager
def _compiled_code_in(folder: Path) -> Iterator[None]:
    """Have PyTorch keep in ``folder`` what it compiles within the block; it takes the place from the environment.

    Code is chosen by rule, not by timing, so that it is the same in every run.
    """
    place = str(folder.resolve() / "inductor")
    places = {"TORCHINDUCTOR_CACHE_DIR": place, "TRITON_CACHE_DIR": f"{place}/triton"}
    before = {name: os.environ.get(name) for name in places}
    os.environ.update(places)
    try:
        with torch._inductor.config.patch(deterministic=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, about its own internals
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
