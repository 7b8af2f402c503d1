"""Sections of the sinusoid experiment."""

from typing import Annotated

from pydantic import AfterValidator, Field

from metalib.config.fields import (
    Count,
    Counts,
    Decay,
    InnerSteps,
    Points,
    Positive,
    Positives,
    Range,
    Section,
    Seed,
    Seeds,
    Shot,
    Shots,
    Tasks,
    Width,
    distinct,
)
from metalib.config.update_rules import GradientDescentRuleSettings, LSTMRuleSettings


class NetworkSettings(Section):
    """The learner of every method."""

    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    initial_std: Positive


class GenerateTasksSettings(Section):
    """The task distribution, and how many tasks are frozen for validation and test."""

    seed: Seed
    amplitude: Range
    phase: Range
    x: Range
    support_points: Points
    validation_tasks: Tasks
    test_tasks: Tasks
    query_points: Points


class OuterLoopSettings(Section):
    """Meta-training on sinusoids, whichever the update rule."""

    shots: Shots
    inner_steps: InnerSteps
    meta_batch: Points
    learning_rate: Positive
    epsilon: Positive
    decay: Decay
    averaged_share: Annotated[float, Field(strict=True, ge=0, le=1)]
    meta_steps: Count
    seeds: Seeds


class MetaTrainSettings(OuterLoopSettings, GradientDescentRuleSettings):
    """MAML on sinusoids."""


class MetaTrainLSTMSettings(OuterLoopSettings, LSTMRuleSettings):
    """The LSTM meta-learner on sinusoids."""


class OutsideSettings(Section):
    """Tasks unlike those of training."""

    amplitude: Range
    phase: Range


class AblationSettings(Section):
    """What MAML on sinusoids needs: how many training tasks, how deep and wide a network, how similar a test task."""

    shots: Shot
    training_tasks: Counts
    layers: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=20)], ...], Field(min_length=1), AfterValidator(distinct)
    ]
    units: Annotated[tuple[Width, ...], Field(min_length=1), AfterValidator(distinct)]
    outside: OutsideSettings
    meta_steps: Count
    seeds: Seeds


class TrainBaselineSettings(Section):
    """Training without an inner loop: pretrained and oracle."""

    meta_batch: Points
    points: Points
    learning_rate: Positive
    steps: Count
    seeds: Seeds


class EvaluateSettings(Section):
    """Adaptation on held-out tasks."""

    shots: Shots
    gradient_steps: Annotated[int, Field(strict=True, ge=1, le=100)]
    finetune_rates: Positives
    diverged_above: Positive
