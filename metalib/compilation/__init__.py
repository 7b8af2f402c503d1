"""Many steps of a pure function: eagerly, or as one compiled program for the CPU."""

from metalib.compilation.repeat import Backend, Program, PythonLoop, Step, repeat_eagerly
from metalib.compilation.scan_program import CompilationError, can_compile, compile_scan, obstacle

__all__ = [
    "Backend",
    "CompilationError",
    "Program",
    "PythonLoop",
    "Step",
    "can_compile",
    "compile_scan",
    "obstacle",
    "repeat_eagerly",
]
