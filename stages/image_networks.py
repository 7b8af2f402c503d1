"""Settings into the network of few-shot images."""

from metalib.config import ImageNetworkSettings
from metalib.networks import Architecture, Conv4, FullyConnected


def image_network(settings: ImageNetworkSettings, image_shape: tuple[int, int, int], n_outputs: int) -> Architecture:
    """Return the network that the settings describe, for images ``image_shape`` (channels, height, width)."""
    if settings.kind == "conv4":
        return Conv4(image_shape, settings.filters, n_outputs, settings.downsample)
    return FullyConnected(image_shape, settings.hidden, n_outputs)
