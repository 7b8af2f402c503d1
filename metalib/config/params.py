"""All settings of one scale."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from metalib.config.fields import Positives, Section, Seed
from metalib.config.images import (
    EvaluateClassifierSettings,
    GenerateImageTasksSettings,
    ImageNetworkSettings,
    MetaTrainClassifierLSTMSettings,
    MetaTrainClassifierSettings,
    TrainClassifierBaselineSettings,
)
from metalib.config.locomotion import (
    EvaluatePolicySettings,
    MetaTrainPolicySettings,
    PolicySettings,
    TrainPolicyBaselineSettings,
)
from metalib.config.sinusoid import (
    AblationSettings,
    EvaluateSettings,
    GenerateTasksSettings,
    MetaTrainLSTMSettings,
    MetaTrainSettings,
    NetworkSettings,
    TrainBaselineSettings,
)

Scale = Literal["quick", "default", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)


class ReportSettings(Section):
    """Statistics of tables and figures."""

    seed: Seed
    bootstrap_samples: Annotated[int, Field(strict=True, ge=100, le=20_000)]
    target_errors: Positives


class Params(Section):
    """All settings of one scale, as the stages use them."""

    scale: Scale
    network: NetworkSettings
    generate_tasks: GenerateTasksSettings
    meta_train: MetaTrainSettings
    meta_train_lstm: MetaTrainLSTMSettings
    train_baseline: TrainBaselineSettings
    evaluate: EvaluateSettings
    ablation: AblationSettings
    generate_image_tasks: GenerateImageTasksSettings
    image_network: ImageNetworkSettings
    meta_train_classifier: MetaTrainClassifierSettings
    meta_train_classifier_lstm: MetaTrainClassifierLSTMSettings
    train_classifier_baseline: TrainClassifierBaselineSettings
    evaluate_classifier: EvaluateClassifierSettings
    policy: PolicySettings
    meta_train_policy: MetaTrainPolicySettings
    train_policy_baseline: TrainPolicyBaselineSettings
    evaluate_policy: EvaluatePolicySettings
    report: ReportSettings
