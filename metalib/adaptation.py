"""The inner loop. There is one, for regression, classification, locomotion, training and test."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.func import grad_and_value

from metalib.losses import Loss
from metalib.update_rules.protocol import UpdateRule


def adapt(loss: Loss, rule: UpdateRule, omega: Tensor, theta: Tensor, batches: Iterable[Any]) -> list[Tensor]:
    """Return ``[theta_0, ..., theta_T]``, the learner's parameters after each of T inner steps on one task.

    At step t the rule moves theta_t along the gradient of ``loss`` on the t-th batch:
    ``theta_{t+1} = rule.step(omega, theta_t, grad L(theta_t), L(theta_t), state_t)``.
    The result is differentiable with respect to omega and theta_0 unless the rule is first order, in
    which case gradient and loss are constants. Written for one task: ``vmap`` adds tasks and seeds.

    Args:
        loss: the task's loss, ``(theta, batch) -> scalar``.
        rule: how theta moves.
        omega: the rule's learned parameters, ``[n_omega]``.
        theta: where adaptation starts, ``[n_parameters]``.
        batches: one batch of support data an inner step; ``[support] * T`` for T steps on all of it.
    """
    return [theta, *(moved for moved, _ in inner_steps(loss, rule, omega, theta, batches))]


def inner_steps(
    loss: Loss, rule: UpdateRule, omega: Tensor, theta: Tensor, batches: Iterable[Any]
) -> Iterator[tuple[Tensor, Any]]:
    """Yield theta and the rule's state after each inner step; see :func:`adapt`."""
    state = rule.initial_state(theta)
    for batch in batches:
        # At a constant theta nothing is recorded for derivatives that first order does without.
        at = theta.detach() if rule.first_order else theta
        gradient, value = grad_and_value(loss)(at, batch)
        theta, state = rule.step(omega, theta, gradient, value, state)
        yield theta, state
