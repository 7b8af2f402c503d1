"""Update rules: how a learner moves in parameter space, given its gradient and loss."""

from typing import Any

from metalib.update_rules.gradient_descent import GradientDescent, rate_name
from metalib.update_rules.lstm import LSTMRule
from metalib.update_rules.meta_sgd import MetaSGD
from metalib.update_rules.protocol import UpdateRule
from metalib.update_rules.scheduled import ScheduledGradientDescent

__all__ = ["GradientDescent", "LSTMRule", "MetaSGD", "ScheduledGradientDescent", "UpdateRule", "from_dict", "rate_name"]

_KINDS: dict[str, Any] = {
    "gradient_descent": GradientDescent,
    "lstm": LSTMRule,
    "meta_sgd": MetaSGD,
    "scheduled_gradient_descent": ScheduledGradientDescent,
}


def from_dict(description: dict[str, Any]) -> UpdateRule:
    """Return the rule that ``to_dict`` wrote.

    Raises:
        ValueError: the description names an unknown kind of rule.
    """
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of update rule {kind!r}; known: {', '.join(_KINDS)}")
    rule: UpdateRule = _KINDS[kind](**settings)
    return rule
