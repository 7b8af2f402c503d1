"""Task families p(T): what a task is, and how its episodes are drawn."""

from metalib.tasks.sinusoid import Sinusoid, SinusoidTasks

__all__ = ["Sinusoid", "SinusoidTasks"]
