"""Implementations of the meta-step, one module each, with ``prepare``; see :mod:`benchmarks.contenders.catalogue`."""
