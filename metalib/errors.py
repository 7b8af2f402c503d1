"""The errors that a user can mend: commands show their message as one line, without a traceback."""


class MetalibError(RuntimeError):
    """Something that the message explains and says how to mend."""


class Interrupted(RuntimeError):  # noqa: N818 (a request that was met, not an error)
    """Work was asked to stop."""
