"""Small batched matrix products inside compiled programs: ``metalib::small_matmul``, built on first use."""

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.cpp_extension import include_paths

SOURCE = Path(__file__).with_suffix(".cpp")
SHIM = "AOTITorchError aoti_torch_cpu_small_matmul(AtenTensorHandle a, AtenTensorHandle b, AtenTensorHandle* result)"
LARGEST_INNER, LARGEST_WIDTH = 512, 128
"""Above these sizes of the inner dimension and of a row of the result, a BLAS product is faster."""

_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-shared", "-Wno-psabi")


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


@functools.cache
def load_kernel(folder: Path, compiler: str) -> bool:
    """Build the kernel into ``folder`` unless it is there, and load it; False if it cannot be built here."""
    key = hashlib.sha256(machine_key().encode()).hexdigest()[:16]
    library = folder / f"small_matmul-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}.partial")
        includes = [flag for path in include_paths() for flag in ("-isystem", path)]
        libraries = Path(torch.__file__).parent / "lib"
        link = [f"-L{libraries}", "-ltorch_cpu", f"-Wl,-rpath,{libraries}"]
        command = [compiler, *_FLAGS, *includes, str(SOURCE), *link, "-o", str(partial)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            partial.unlink(missing_ok=True)
            return False
        partial.replace(library)
    # Global, so that programs compiled later find the symbol.
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return True


def machine_key() -> str:
    """Return what compiled code depends on beside its source: a folder may be shared between machines."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return repr((SOURCE.read_text(), _FLAGS, torch.__version__, platform.machine(), features))
