"""Every random number of the project comes from a generator made here."""

import hashlib

import torch


def generator(seed: int, purpose: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator that belongs to ``(seed, purpose, step)``.

    The key is hashed (SHA-256) into the generator's seed, so that the numbers drawn for one step do not depend on which
    steps were drawn before: a resumed run, or one split over workers, draws the same. On the CPU the generator is a
    Mersenne twister, for which PyTorch uses 32 bits of a seed: among n generators the chance that two draw the same
    numbers is about n^2 / 2^33 (1% for 10,000).

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for, e.g. ``"training tasks"``.
        step: position within the purpose, e.g. the first meta-step of a chunk.
        device: where numbers are drawn; a CUDA device draws other numbers of the same key than the CPU.
    """
    key = f"{seed}/{purpose}/{step}".encode()
    digest = hashlib.sha256(key).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))
