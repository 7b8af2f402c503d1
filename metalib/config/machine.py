"""How the machine is used."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from metalib.config.fields import Section


def _worker_count(value: int | Literal["auto"]) -> int | Literal["auto"]:
    if value != "auto" and not 1 <= value <= 1024:
        raise ValueError("should be auto or a number from 1 to 1024")
    return value


class MachineSettings(Section):
    """How this machine is used; nothing here changes what is computed beyond rounding, and DVC ignores it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "compiled", "eager"] = "auto"
    workers: Annotated[int | Literal["auto"], AfterValidator(_worker_count)] = "auto"
    checkpoint_seconds: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 30.0
