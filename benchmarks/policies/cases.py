"""The meta-steps that are measured: families, sizes and settings."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from metalib.locomotion.families import family_named
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.surrogate import SURROGATES
from metalib.locomotion.view import ObservationView
from metalib.meta_training.policy_search import PolicySearch
from metalib.meta_training.trust_region import TrustRegion
from metalib.policy_adaptation import PolicyAdaptation
from metalib.randomness import generator
from metalib.update_rules import GradientDescent

GAMMA, LAM, OUTPUT_SCALE, SEED = 0.99, 1.0, 0.1, 0


@dataclass(frozen=True)
class Case:
    """A MAML-TRPO meta-step with one inner step of gradient descent, under the paper's timing.

    Args:
        label: for people.
        family: of the tasks.
        tasks, rollouts, horizon: sizes; K is ``rollouts``, H ``horizon``.
        hidden, activation: of the policy.
        scales: of the observation's parts, see :class:`metalib.locomotion.view.ObservationView`.
        log_std: of the actions at the start.
        kl_bound: of the outer step.
        thin: the curvature is taken on every ``thin``-th state.
        inner_rate: alpha.
    """

    label: str
    family: str
    tasks: int = 20
    rollouts: int = 20
    horizon: int = 200
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    scales: dict[str, float] = field(default_factory=dict)
    log_std: float = 0.0
    kl_bound: float = 0.01
    thin: int = 20
    inner_rate: float = 0.1

    def search(self, threads: int, n_steps: int) -> PolicySearch:
        """Return the search whose meta-steps are measured; it looks at no validation goal in the first ``n_steps``."""
        family = family_named(self.family)
        view = ObservationView.of(family, self.scales)
        policy = GaussianPolicy((view.size, *self.hidden, family.action_size), self.activation)
        sampler = Sampler(family, policy, view, self.rollouts, self.horizon, "paper", threads)
        loss = SURROGATES["likelihood_ratio"](policy)
        return PolicySearch(
            adaptation=PolicyAdaptation(sampler, GradientDescent(self.inner_rate), loss, GAMMA, LAM),
            inner_steps=1,
            pretraining_steps=0,
            trust_region=TrustRegion(self.kl_bound),
            meta_batch=self.tasks,
            thin=self.thin,
            validation_goals=self.goals(),
            validate_every=n_steps + 1,
            seed=SEED,
        )

    def goals(self) -> Tensor:
        """Draw goals ``[task, goal_size]``, always the same."""
        return family_named(self.family).draw_goals(generator(SEED, "goals"), self.tasks)

    def initial_phi(self, policy: GaussianPolicy) -> Tensor:
        """Draw the parameters ``[n_phi]`` of the fixed start."""
        return policy.initial_theta(generator(SEED, "initial theta"), self.log_std, OUTPUT_SCALE)


CASES = {
    "small": Case("half-cheetah, small sizes", "cheetah_dir"),
    "published": Case("half-cheetah, published sizes", "cheetah_dir", 40, hidden=(100, 100), activation="relu"),
    "ant": Case(
        "ant, small sizes",
        "ant_dir",
        scales={"velocities": 0.1, "contact_forces": 0.0},
        log_std=-1.0,
        kl_bound=0.02,
    ),
}


def case_named(name: str, quick: bool) -> Case:
    """Return one of :data:`CASES`; a tiny one of its kind if ``quick``."""
    case = CASES[name]
    return replace(case, tasks=3, rollouts=2, horizon=20, hidden=(8, 8), thin=4) if quick else case
