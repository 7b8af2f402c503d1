"""Update rules: how a learner moves in parameter space, given its gradient and loss."""

from metalib.update_rules.gradient_descent import GradientDescent
from metalib.update_rules.protocol import UpdateRule

__all__ = ["GradientDescent", "UpdateRule"]
