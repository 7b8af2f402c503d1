"""Networks as pure functions of one flat parameter vector, and the descriptions they are built from."""

from typing import Any

from metalib.networks.architecture import Architecture
from metalib.networks.images import Conv4, FullyConnected, with_new_head
from metalib.networks.mlp import MLP, MLPNetwork
from metalib.networks.network import Network, View

__all__ = [
    "MLP",
    "Architecture",
    "Conv4",
    "FullyConnected",
    "MLPNetwork",
    "Network",
    "View",
    "from_dict",
    "with_new_head",
]

_KINDS: dict[str, Any] = {"mlp": MLP, "conv4": Conv4, "fully_connected": FullyConnected}


def from_dict(description: dict[str, Any]) -> Architecture:
    """Return the network description that ``to_dict`` wrote.

    Raises:
        ValueError: the description names an unknown kind of network.
    """
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    kind = sizes.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of network {kind!r}; known: {', '.join(_KINDS)}")
    architecture: Architecture = _KINDS[kind](**sizes)
    return architecture
