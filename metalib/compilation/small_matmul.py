"""Small batched matrix products inside compiled programs: ``metalib::small_matmul``, built on first use."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.cpp_extension import include_paths

from metalib.compilation import native

SOURCE = Path(__file__).with_suffix(".cpp")
SHIM = "AOTITorchError aoti_torch_cpu_small_matmul(AtenTensorHandle a, AtenTensorHandle b, AtenTensorHandle* result)"
LARGEST_INNER, LARGEST_WIDTH = 512, 128
"""Above these sizes of the inner dimension and of a row of the result, a BLAS product is faster."""


@torch.library.custom_op("metalib::small_matmul", mutates_args=())
def small_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` for float32 ``a`` ``[batch, m, k]`` and ``b`` ``[batch, k, n]``.

    Compiled programs call the kernel of small_matmul.cpp instead of this reference.
    """
    return torch.bmm(a, b)


@small_matmul.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


def fits(a: Tensor, b: Tensor) -> bool:
    """Whether the kernel serves this product and is likely faster than BLAS."""
    inner, columns = b.shape[-2:]
    is_float = a.dtype == b.dtype == torch.float32
    return is_float and a.device.type == "cpu" and 1 < inner <= LARGEST_INNER and 1 < columns <= LARGEST_WIDTH


def load_kernel(folder: Path, compiler: str) -> bool:
    """Build the kernel into ``folder`` unless it is there, and load it; False if it cannot be built here."""
    includes = [flag for path in include_paths() for flag in ("-isystem", path)]
    libraries = Path(torch.__file__).parent / "lib"
    flags = (*includes, f"-L{libraries}", "-ltorch_cpu", f"-Wl,-rpath,{libraries}")
    # Global, so that programs compiled later find the symbol.
    return native.load(SOURCE, folder, compiler, flags, ctypes.RTLD_GLOBAL) is not None


def machine_key() -> str:
    """Return what compiled code depends on beside its source."""
    return native.machine_key(SOURCE)
