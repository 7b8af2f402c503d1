"""``params.yaml`` and ``machine.yaml`` as frozen, validated settings. A mistake is refused before any work."""

from metalib.config.errors import ConfigError
from metalib.config.fields import Decay
from metalib.config.images import (
    ClassifierAt,
    EvaluateClassifierSettings,
    GenerateImageTasksSettings,
    ImageNetworkSettings,
    MetaTrainClassifierLSTMSettings,
    MetaTrainClassifierSettings,
    TrainClassifierBaselineSettings,
)
from metalib.config.loading import load_machine, load_params
from metalib.config.locomotion import (
    EvaluatePolicySettings,
    MetaTrainPolicySettings,
    PolicySettings,
    TrainPolicyBaselineSettings,
    TrustRegionSettings,
)
from metalib.config.machine import MachineSettings
from metalib.config.params import SCALES, Params, ReportSettings, Scale
from metalib.config.sinusoid import (
    AblationSettings,
    EvaluateSettings,
    GenerateTasksSettings,
    MetaTrainLSTMSettings,
    MetaTrainSettings,
    NetworkSettings,
    TrainBaselineSettings,
)
from metalib.config.update_rules import GradientDescentRuleSettings, LSTMRuleSettings

__all__ = [
    "SCALES",
    "AblationSettings",
    "ClassifierAt",
    "ConfigError",
    "Decay",
    "EvaluateClassifierSettings",
    "EvaluatePolicySettings",
    "EvaluateSettings",
    "GenerateImageTasksSettings",
    "GenerateTasksSettings",
    "GradientDescentRuleSettings",
    "ImageNetworkSettings",
    "LSTMRuleSettings",
    "MachineSettings",
    "MetaTrainClassifierLSTMSettings",
    "MetaTrainClassifierSettings",
    "MetaTrainLSTMSettings",
    "MetaTrainPolicySettings",
    "MetaTrainSettings",
    "NetworkSettings",
    "Params",
    "PolicySettings",
    "ReportSettings",
    "Scale",
    "TrainBaselineSettings",
    "TrainClassifierBaselineSettings",
    "TrainPolicyBaselineSettings",
    "TrustRegionSettings",
    "load_machine",
    "load_params",
]
