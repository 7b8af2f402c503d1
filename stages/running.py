"""What every stage shares: settings checked first, outputs all or nothing, errors in one line, a log of its cost."""

import gc
import hashlib
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError, safe_open

from metalib.config import MachineSettings, Params, load_machine, load_params
from metalib.errors import Interrupted, MetalibError
from metalib.storage import StorageError, write_json
from stages.parent_death import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
LOGS = Path("logs/stages")

ParamsOption = Annotated[Path, typer.Option("--params", help="The settings file.", metavar="FILE")]
PARAMS = Path("params.yaml")
MACHINE = Path("machine.yaml")
RESULTS = (
    *("*.safetensors", "curves.tsv", "*-curves.tsv", "rates.json", "video.webp"),
    *("distribution.json", "anchors.json", "tasks.json", "glyph_counts.json"),
    *("metrics.json", "report.md", "index.html"),
)
"""The names of the files that stages write: a plain command replaces a folder that holds no other.

By their names, for a file that marks a folder as a result would change the hashes that DVC keeps, and a list kept
elsewhere would know nothing of results that DVC or git brought.
"""
REPORT = ("tables/*.csv", "figures/*.png", "figures/*.webp")
"""What a report holds beside metrics.json; by themselves such files may be anyone's."""
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers write where somebody looks at a result."""


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
    def output(self, folder: Path, *inputs: Path) -> Iterator[Path]:
        """Give an empty folder to write to; on success it replaces ``folder`` whole, else nothing changes.

        Args:
            folder: where the result goes; what stands there must be a result of a stage.
            inputs: what the stage reads; the result must leave it standing.

        Raises:
            StorageError: the place cannot be written, or holds what is no result; said before any work is done.
            StageError: the project's sources changed meanwhile, so that old code would stand for new.
        """
        _refuse_unsafe(folder, (*inputs, Path(self.params.generate_image_tasks.folder)))
        target = folder.resolve()  # behind a link, so that the link stays
        partial = target.parent / f".{target.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"cannot write {folder} ({error.strerror}); check the folder and its rights") from error
        try:
            yield partial
            if fingerprint_sources() != self.sources:
                raise StageError(f"the sources changed while {self.name} ran; its result was dropped: run it again")
            try:
                _put_in_place(partial, target)
            except OSError as error:
                raise StorageError(f"cannot replace {folder} ({error.strerror}); check its rights") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(result: Path, target: Path) -> None:
    """Move the folder ``result`` to ``target``; what stands there is deleted after that.

    Raises:
        OSError: the folder that holds them cannot be written.
    """
    old = target.parent / f".{target.name}.old.partial"
    shutil.rmtree(old, ignore_errors=True)  # a run that was killed in the last line left it
    if target.is_dir():
        target.rename(old)
    result.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_unsafe(folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse to replace what is no result: a file, the project itself or what holds it, inputs, files of others.

    Raises:
        StorageError: says which.
    """
    here, target = Path.cwd().resolve(), folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"cannot write {folder}: it is a file; name a folder")
    if here.is_relative_to(target) or ROOT.is_relative_to(target):
        raise StorageError(f"cannot write {folder}: it holds the project itself; name a folder of its own")
    for path in inputs:
        if path.resolve().is_relative_to(target):
            raise StorageError(
                f"cannot write {folder}: the result would replace {path}, which the stage reads; name another folder"
            )
    stranger = next(_strangers(target), None)
    if stranger is not None:
        raise StorageError(
            f"cannot write {folder}: it holds {stranger.relative_to(target)}, which no stage wrote, and would be "
            "replaced whole; name another folder, or move that file elsewhere"
        )


def _strangers(folder: Path) -> Iterator[Path]:
    """Give the files in a folder, at any depth, that are unlike all that stages write."""
    patterns = (*RESULTS, *REPORT) if (folder / "metrics.json").is_file() else RESULTS
    results = {path for pattern in patterns for path in folder.glob(pattern)}
    for path in folder.rglob("*"):
        is_folder = path.is_dir() and not path.is_symlink()
        is_result = path in results and (path.suffix != ".safetensors" or _is_tensors_of_metalib(path))
        if not (is_folder or is_result or path.name in LITTER):
            yield path


def _is_tensors_of_metalib(path: Path) -> bool:
    """Whether a safetensors file has the header that :func:`metalib.storage.save_tensors` writes."""
    try:
        with safe_open(path, framework="pt") as file:
            return "metalib" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


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
    except (Interrupted, KeyboardInterrupt) as error:
        told = str(error) if isinstance(error, Interrupted) else "nothing to save"
        print(f"interrupted: {name}: {told}", file=sys.stderr)
        gc.freeze()  # or the interpreter would go through all of PyTorch for garbage as it ends: a second for nothing
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
    # All that is published here was computed on CPUs; a GPU is used where it is asked for.
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
