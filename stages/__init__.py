"""The pipeline's commands: one module is one kind of DVC stage, run as ``python -m stages.<name>``."""
