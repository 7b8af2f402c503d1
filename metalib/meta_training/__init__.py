"""Outer loops: how the meta-parameters phi are learned."""
