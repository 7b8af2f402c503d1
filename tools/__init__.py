"""Commands around the pipeline: preflight, the quick run in a temporary clone, the import closure of stages."""
