"""Settings into update rules: the one place of the stages that knows which rules there are."""

from enum import StrEnum

from metalib.compilation import Backend, repeat_eagerly
from metalib.config import GradientDescentRuleSettings, LSTMRuleSettings, MachineSettings
from metalib.trained_method import TrainedMethod
from metalib.update_rules import GradientDescent, LSTMRule, UpdateRule
from metalib.update_rules.fused_lstm import fused, kernel_obstacle
from stages.training import Compilation, Trainer, programs_folder


class MetaLearner(StrEnum):
    """Methods that meta-learn: how the learner moves, and where it starts."""

    MAML = "maml"
    LSTM = "lstm"


def update_rule(settings: GradientDescentRuleSettings | LSTMRuleSettings) -> UpdateRule:
    """Return the update rule that the settings describe."""
    if isinstance(settings, LSTMRuleSettings):
        return LSTMRule(settings.hidden_size, settings.feedback, settings.first_order, settings.input_bias)
    return GradientDescent(settings.inner_rate, settings.first_order)


def compilation(settings: GradientDescentRuleSettings | LSTMRuleSettings, learner: Compilation) -> Compilation:
    """Return when compiling pays for a rule, if ``learner`` is the answer where the meta-step is compiled."""
    if not isinstance(settings, LSTMRuleSettings):
        return learner
    return Compilation(1, kernel_obstacle)  # the kernel of the rule's step is built in seconds


def trainer_rule(
    settings: GradientDescentRuleSettings | LSTMRuleSettings, trainer: Trainer
) -> tuple[UpdateRule, Backend]:
    """Return the update rule as training runs it here, and what repeats the meta-step.

    On the CPU a step of the LSTM rule is compiled by itself; compiling the whole meta-step around it takes minutes and
    is slower.
    """
    rule = update_rule(settings)
    if not isinstance(rule, LSTMRule) or trainer.device == "cuda":
        return rule, trainer.loop_backend()
    if trainer.backend == "compiled":
        return fused(rule, programs_folder()), repeat_eagerly
    return rule, repeat_eagerly


def rule_at_test(method: TrainedMethod, rate: float | None) -> UpdateRule:
    """Return the method's own update rule; of one that brings none gradient descent at the ``rate`` chosen for it.

    Raises:
        ValueError: there is neither.
    """
    if method.rule is not None:
        return method.rule
    if rate is None:
        raise ValueError(f"{method.method} brings no update rule, so it needs a rate")
    return GradientDescent(rate)


def evaluation_rule(rule: UpdateRule, machine: MachineSettings) -> UpdateRule:
    """Return the update rule as evaluation runs it here."""
    if isinstance(rule, LSTMRule) and machine.backend != "eager":
        return fused(rule, programs_folder())
    return rule
