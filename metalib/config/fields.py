"""The kinds of values that settings take, and the section that holds them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("the first number must be below the second")
    return bounds


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list with a value that stands twice."""
    if len(set(values)) != len(values):
        raise ValueError("the values must differ from each other")
    return values


Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[float, Field(strict=True, ge=-1e6, le=1e6, allow_inf_nan=False)]
Counts = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=1, le=1_000_000)], ...], Field(min_length=1), AfterValidator(distinct)
]
Points = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Tasks = Annotated[int, Field(strict=True, ge=2, le=20_000)]
Decay = Literal["none", "cosine", "late_cosine"]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
InnerSteps = Annotated[int, Field(strict=True, ge=1, le=1000)]
Shot = Annotated[int, Field(strict=True, ge=1, le=1000)]
Width = Annotated[int, Field(strict=True, ge=1, le=10_000)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=180, allow_inf_nan=False)]
WayName = Annotated[str, Field(pattern=r"^[1-9][0-9]*-way$")]
ShotName = Annotated[str, Field(pattern=r"^[1-9][0-9]*-shot$")]
Range = Annotated[tuple[Number, Number], AfterValidator(_ascending)]
Shots = Annotated[tuple[Shot, ...], Field(min_length=1), AfterValidator(distinct)]
Ways = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=2, le=1000)], ...], Field(min_length=1), AfterValidator(distinct)
]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(distinct)]


class Section(BaseModel):
    """A section of settings: unknown keys, wrong types and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
