"""How the machine is used."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from metalib.config.fields import Section


def _worker_count(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and 1 <= value <= 1024):
        raise ValueError("should be auto or a number from 1 to 1024")
    return value


class MachineSettings(Section):
    """How this machine is used; DVC ignores it.

    Nothing here changes what is computed beyond rounding, but for ``device``: CUDA draws other tasks of the same seeds.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "compiled", "eager"] = "auto"
    workers: Annotated[int | Literal["auto"], BeforeValidator(_worker_count)] = "auto"
    checkpoint_seconds: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 30.0
