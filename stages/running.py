"""What every stage shares: settings checked first, outputs all or nothing, errors in one line, a log of its cost."""

import hashlib
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from metalib.config import MachineSettings, Params, load_machine, load_params
from metalib.errors import Interrupted, MetalibError
from metalib.storage import StorageError, write_json
from stages.parent_death import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
LOGS = Path("logs/stages")

ParamsOption = Annotated[Path, typer.Option("--params", help="The settings file.", metavar="FILE")]
PARAMS = Path("params.yaml")
MACHINE = Path("machine.yaml")


class StageError(MetalibError):
    """A stage cannot do what it was asked to."""


@dataclass(frozen=True)
class Run:
    """A stage at work: validated settings, and how to use the machine."""

    name: str
    params: Params
    machine: MachineSettings
    sources: str

    @contextmanager
    def output(self, folder: Path) -> Iterator[Path]:
        """Give an empty folder to write to; on success it replaces ``folder`` whole, else nothing changes.

        Raises:
            StorageError: the place cannot be written; said before any work is done.
            StageError: the project's sources changed meanwhile, so that old code would stand for new.
        """
        _refuse_unsafe(folder)
        partial = folder.parent / f".{folder.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"cannot write {folder} ({error.strerror}); check the folder and its rights") from error
        try:
            yield partial
            if fingerprint_sources() != self.sources:
                raise StageError(f"the sources changed while {self.name} ran; its result was dropped: run it again")
            old = folder.parent / f".{folder.name}.old.partial"
            try:
                if folder.is_dir():
                    folder.rename(old)
                partial.rename(folder)
            except OSError as error:
                raise StorageError(f"cannot replace {folder} ({error.strerror}); check its rights") from error
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _refuse_unsafe(folder: Path) -> None:
    """Refuse to replace what is no result: a file, the project itself or what holds it, sources."""
    here, target = Path.cwd().resolve(), folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"cannot write {folder}: it is a file; name a folder")
    if here.is_relative_to(target) or ROOT.is_relative_to(target):
        raise StorageError(f"cannot write {folder}: it holds the project itself; name a folder of its own")
    if any((folder / name).exists() for name in (".git", "__init__.py", "architecture.md")) or any(
        folder.glob("*/.git")
    ):
        raise StorageError(
            f"cannot write {folder}: it holds sources, which the result would replace; name another folder"
        )


@contextmanager
def stage(name: str, params_path: Path) -> Iterator[Run]:
    """Run the body as stage ``name``; settings are validated first.

    Expected errors end in one line and exit code 1, an interrupt in one line and exit code 130.
    """
    started = time.monotonic()
    if "DVC_ROOT" in os.environ:
        die_with_parent(signal.SIGTERM)  # a killed DVC leaves its stage running otherwise
    try:
        run = Run(name, load_params(params_path), load_machine(MACHINE), fingerprint_sources())
        choose_device(run.machine)  # refuse a device that is not here before any work
        yield run
    except MetalibError as error:
        print(f"error: {name}: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except Interrupted as error:
        print(f"interrupted: {name}: {error}", file=sys.stderr)
        raise typer.Exit(130) from error
    except KeyboardInterrupt as error:
        print(f"interrupted: {name}: nothing to save", file=sys.stderr)
        raise typer.Exit(130) from error
    cost = {"stage": name, "seconds": round(time.monotonic() - started, 2), "peak_memory_mb": _peak_memory_mb()}
    try:
        write_json(LOGS / f"{name}.json", cost)
    except StorageError as error:  # the result stands; only the table of costs lacks a row
        print(f"note: {name}: {error}", file=sys.stderr)


def choose_device(machine: MachineSettings) -> torch.device:
    """Return the device of the machine settings.

    Raises:
        StageError: CUDA is asked for and there is none.
    """
    if machine.device == "cuda":
        if not torch.cuda.is_available():
            raise StageError(
                "device: 'cuda' was asked for, but torch sees no CUDA device; "
                "set device: auto or cpu in machine.yaml (or METALIB_DEVICE)"
            )
        return torch.device("cuda")
    # For learners of two thousand parameters the launch of a kernel costs more than its arithmetic on a CPU.
    return torch.device("cpu")


def fingerprint_sources() -> str:
    """Return a hash of every source file of the project that can enter a result."""
    digest = hashlib.sha256()
    for package in ("metalib", "stages"):
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".j2"):
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _peak_memory_mb() -> int:
    """Return the largest resident memory of this process or of one of its workers, in MB."""
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(usage) * unit // 1_000_000
