"""Reproducible meta-learning. The public names below load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalib.adaptation import adapt as adapt
    from metalib.networks import MLP as MLP
    from metalib.networks import Network as Network
    from metalib.randomness import generator as generator
    from metalib.tasks import Sinusoid as Sinusoid
    from metalib.trained_method import Learner as Learner
    from metalib.trained_method import TrainedMethod as TrainedMethod
    from metalib.update_rules import GradientDescent as GradientDescent

_HOME = {
    "MLP": "metalib.networks",
    "GradientDescent": "metalib.update_rules",
    "Learner": "metalib.trained_method",
    "Network": "metalib.networks",
    "Sinusoid": "metalib.tasks",
    "TrainedMethod": "metalib.trained_method",
    "adapt": "metalib.adaptation",
    "generator": "metalib.randomness",
}
__all__ = [
    "MLP",
    "GradientDescent",
    "Learner",
    "Network",
    "Sinusoid",
    "TrainedMethod",
    "adapt",
    "generator",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'metalib' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
