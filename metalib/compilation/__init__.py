"""Many steps of a pure function as one compiled program for the CPU."""

from metalib.compilation.scan_program import CompilationError, compile_scan, compiler

__all__ = ["CompilationError", "compile_scan", "compiler"]
