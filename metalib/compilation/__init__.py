"""Many steps of a pure function: eagerly, as one compiled program for the CPU, or as CUDA graphs."""

from metalib.compilation.cuda_graph import cuda_graph_obstacle, replay_steps
from metalib.compilation.errors import CompilationError
from metalib.compilation.repeat import Backend, Program, PythonLoop, Step, repeat_eagerly
from metalib.compilation.scan_program import can_compile, compile_scan, obstacle

__all__ = [
    "Backend",
    "CompilationError",
    "Program",
    "PythonLoop",
    "Step",
    "can_compile",
    "compile_scan",
    "cuda_graph_obstacle",
    "obstacle",
    "repeat_eagerly",
    "replay_steps",
]
