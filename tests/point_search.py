"""A small policy for point navigation and how it adapts, for tests that train or evaluate one in a second."""

import torch

from metalib.locomotion.families import FAMILIES
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.surrogate import SURROGATES
from metalib.locomotion.view import ObservationView
from metalib.meta_training.policy_search import PolicySearch
from metalib.meta_training.trust_region import TrustRegion
from metalib.policy_adaptation import PolicyAdaptation
from metalib.randomness import generator
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import GradientDescent

POINT = FAMILIES["point_navigation"]
VIEW = ObservationView.of(POINT, {})
RATE = 0.02


def small_policy(view=VIEW):
    return GaussianPolicy((view.size, 8, 2), "tanh")


def start(view=VIEW, seed=0):
    return small_policy(view).initial_theta(generator(seed, "theta"), log_std=-2.5)


def adaptation(rule=GradientDescent(RATE), view=VIEW, rollouts=10, horizon=10, threads=1):  # noqa: B008 (a value)
    policy = small_policy(view)
    sampler = Sampler(POINT, policy, view, rollouts, horizon, "paper", threads)
    return PolicyAdaptation(sampler, rule, SURROGATES["likelihood_ratio"](policy), 0.99, 1.0)


def search(adapts=None, inner_steps=1, bound=0.02, seed=0, meta_batch=8, validate_every=5, pretraining_steps=0):
    goals = POINT.draw_goals(generator(0, "validation goals"), 8)
    region = TrustRegion(bound)
    adapts = adapts or adaptation()
    return PolicySearch(adapts, inner_steps, pretraining_steps, region, meta_batch, 1, goals, validate_every, seed)


def trained(method="maml", rule=GradientDescent(RATE), phi=None, **changes):  # noqa: B008 (a value)
    phi = torch.stack([start(seed=seed) for seed in (3, 5)]) if phi is None else phi
    given = {
        "method": method,
        "family": POINT,
        "policy": small_policy(),
        "view": VIEW,
        "phi": phi,
        "seeds": (3, 5),
        "rule": rule,
        "inner_steps": 1,
        "surrogate": "likelihood_ratio",
        "rollouts": 5,
        "horizon": 6,
        "timing": "paper",
        "gamma": 0.99,
        "lam": 1.0,
        "env_steps": 1200,
        "settings": {"meta_batch": 8},
    }
    return TrainedPolicy(**{**given, **changes})
