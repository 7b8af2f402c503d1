"""``params.yaml`` and ``machine.yaml`` as frozen, validated settings. A mistake is refused before any work."""

from metalib.config.errors import ConfigError
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
from metalib.config.machine import MachineSettings
from metalib.config.params import SCALES, Params, ReportSettings, Scale
from metalib.config.sinusoid import (
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
    "ClassifierAt",
    "ConfigError",
    "EvaluateClassifierSettings",
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
    "MetaTrainSettings",
    "NetworkSettings",
    "Params",
    "ReportSettings",
    "Scale",
    "TrainBaselineSettings",
    "TrainClassifierBaselineSettings",
    "load_machine",
    "load_params",
]
