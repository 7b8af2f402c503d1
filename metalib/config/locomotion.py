"""Sections of the locomotion experiment."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from metalib.config.fields import Count, InnerSteps, Points, Positive, Positives, Section, Seed, Seeds, Shots, Width

_BODIES = ("cheetah", "ant", "point")
_FAMILIES = ("cheetah_vel", "cheetah_dir", "ant_vel", "ant_dir", "point_navigation")


def _one_of(known: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"should be one of {', '.join(known)}")
        return name

    return AfterValidator(check)


Body = Annotated[str, _one_of(_BODIES)]
FamilyName = Annotated[str, _one_of(_FAMILIES)]
Scale = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
LogStd = Annotated[float, Field(strict=True, ge=-20, le=5, allow_inf_nan=False)]
Lambda = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Part = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
ByFamily = Annotated[dict[FamilyName, Count], Field(min_length=5)]


class PolicySettings(Section):
    """What the policies of all methods share: simulation, network, start, returns."""

    timing: Literal["paper", "gymnasium"]
    horizon: Annotated[dict[Body, Annotated[int, Field(strict=True, ge=1, le=10_000)]], Field(min_length=3)]
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    activation: Literal["relu", "tanh"]
    log_std: Annotated[dict[FamilyName, LogStd], Field(min_length=5)]
    output_scale: Share
    observation_scale: Annotated[dict[Body, dict[str, Scale]], Field(min_length=3)]
    gamma: Share
    lam: Annotated[dict[FamilyName, Lambda], Field(min_length=5)]


class TrustRegionSettings(Section):
    """The outer step of every trained policy, and how many tasks and rollouts one sees."""

    rollouts: Annotated[dict[Body, Points], Field(min_length=3)]
    meta_batch: Annotated[dict[Body, Points], Field(min_length=3)]
    kl_bound: Annotated[dict[FamilyName, Positive], Field(min_length=5)]
    conjugate_gradient_steps: InnerSteps
    damping: Scale
    curvature_thinning: Points
    validate_every: Count
    meta_steps: ByFamily
    seeds: Seeds


class MetaTrainPolicySettings(TrustRegionSettings):
    """The inner and outer loop of MAML on locomotion tasks."""

    rule: Literal["gradient_descent", "meta_sgd"]
    inner_rate: Annotated[dict[FamilyName, Positive], Field(min_length=5)]
    pretrained_inner_rate: Annotated[dict[FamilyName, Positive], Field(min_length=5)]
    inner_steps: InnerSteps
    first_order: StrictBool
    pretrained_first_order: StrictBool
    surrogate: Literal["likelihood_ratio", "log_probability"]
    pretraining: Annotated[dict[FamilyName, Part], Field(min_length=5)]


class TrainPolicyBaselineSettings(TrustRegionSettings):
    """Training of one policy for all goals: pretrained and oracle."""


class EvaluatePolicySettings(Section):
    """Adaptation to held-out goals."""

    seed: Seed
    rollouts: Shots
    gradient_steps: Annotated[int, Field(strict=True, ge=1, le=20)]
    later_rates: Share
    finetune_rates: Positives
