"""What goes wrong when a program is compiled."""

from metalib.errors import MetalibError


class CompilationError(MetalibError):
    """A program could not be compiled."""

    @classmethod
    def of(cls, error: Exception) -> "CompilationError":
        """Return a compiler's own error, of whatever class, as one line."""
        first = (str(error).splitlines() or [""])[0]
        return cls(f"{type(error).__name__}: {first[:300]}")
