"""Task families p(T): what a task is, and how its episodes are drawn."""

from metalib.tasks.sinusoid import Sinusoid, SinusoidPool, SinusoidTasks

__all__ = ["Sinusoid", "SinusoidPool", "SinusoidTasks"]
