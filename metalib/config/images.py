"""Sections of few-shot classification of images."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StrictBool

from metalib.config.fields import (
    Count,
    Decay,
    InnerSteps,
    NotNegative,
    Points,
    Positive,
    Positives,
    Section,
    Seed,
    Seeds,
    Shot,
    ShotName,
    Shots,
    Tasks,
    WayName,
    Ways,
    Width,
)
from metalib.config.update_rules import GradientDescentRuleSettings, LSTMRuleSettings


class GenerateImageTasksSettings(Section):
    """Which images, their classes, and how many episodes are frozen for validation and test."""

    dataset: Literal["glyphs", "omniglot", "miniimagenet"]
    folder: str
    seed: Seed
    max_rotation: NotNegative
    max_scale: NotNegative
    max_shear: NotNegative
    max_shift: NotNegative
    rotated_classes: StrictBool
    queries: Shot
    ways: Ways
    shots: Shots
    validation_episodes: Tasks
    test_episodes: Tasks


class ImageNetworkSettings(Section):
    """The learner of every few-shot image method."""

    kind: Literal["conv4", "fully_connected"]
    downsample: Literal["stride", "max_pool"]
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    initial_std: Positive
    filters: Annotated[int, Field(strict=True, ge=1, le=1024)]


class MetaTrainClassifierSettings(Section):
    """The inner and outer loop of MAML on few-shot images; some settings depend on the number of classes."""

    inner_rate: Annotated[dict[WayName, Positive], Field(min_length=1)]
    inner_steps: Annotated[dict[WayName, InnerSteps], Field(min_length=1)]
    first_order: StrictBool
    learning_rate: Positive
    decay: Decay
    meta_batch: Annotated[dict[WayName, Points], Field(min_length=1)]
    meta_steps: Count
    seeds: Seeds

    def at(self, way: int, shot: int) -> "ClassifierAt":
        """Return the settings of N-way K-shot classification."""
        key = f"{way}-way"
        return ClassifierAt(
            GradientDescentRuleSettings(inner_rate=self.inner_rate[key], first_order=self.first_order),
            self.inner_steps[key],
            self.meta_batch[key],
        )


class MetaTrainClassifierLSTMSettings(LSTMRuleSettings):
    """The inner and outer loop of the LSTM meta-learner on few-shot images; T depends on the shot."""

    inner_steps: Annotated[dict[ShotName, InnerSteps], Field(min_length=1)]
    meta_batch: Points
    learning_rate: Positive
    decay: Decay
    meta_steps: Count
    seeds: Seeds

    def at(self, way: int, shot: int) -> "ClassifierAt":
        """Return the settings of N-way K-shot classification."""
        return ClassifierAt(self, self.inner_steps[f"{shot}-shot"], self.meta_batch)


class ClassifierAt(NamedTuple):
    """Settings of N-way K-shot meta-training: the update ``rule``, its ``inner_steps``, episodes a meta-step."""

    rule: GradientDescentRuleSettings | LSTMRuleSettings
    inner_steps: int
    meta_batch: int


class TrainClassifierBaselineSettings(Section):
    """Training of the pretrained classifier on all classes, and of the prototypical network on episodes."""

    learning_rate: Positive
    images: Points
    episodes: Points
    pretrained_steps: Count
    prototypical_steps: Count
    seeds: Seeds


class EvaluateClassifierSettings(Section):
    """Adaptation to held-out classes."""

    gradient_steps: Annotated[int, Field(strict=True, ge=1, le=100)]
    finetune_rates: Positives
