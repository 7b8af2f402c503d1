"""Meta-training of policies, on a point that walks to a goal."""

import math
from dataclasses import replace

import pytest
import torch

from metalib.errors import Interrupted
from metalib.locomotion import advantages
from metalib.locomotion.collector import collect
from metalib.locomotion.value_baseline import fit_values
from metalib.locomotion.view import ObservationView
from metalib.meta_training.checkpoints import Checkpoints, Progress
from metalib.meta_training.policy_search import COUNT_NAMES, CURVE_COLUMNS
from metalib.randomness import generator
from metalib.update_rules import MetaSGD
from tests.point_search import POINT, VIEW, adaptation, search, small_policy, start

WITH_GOAL = ObservationView.of(POINT, {}, with_goal=True)


def run(of, phi, n_steps):
    *_, last = of.run(of.start(phi, n_steps))
    return last


def column(state, name):
    return state.curve[:, CURVE_COLUMNS.index(name)]


def counts(state):
    return dict(zip(COUNT_NAMES, state.counts.tolist(), strict=True))


def bytes_of(state):
    return [part.numpy().tobytes() for part in state]


def validation_return(of, phi, inner_steps):
    iterates = of.adaptation.iterates(
        phi, of.validation_goals, inner_steps, lambda t: generator(0, f"validation rollouts, iterate {t}")
    )
    return iterates[-1].found.returns.mean().item()


def test_it_learns_to_adapt():
    of = search()
    state = run(of, start(), 10)
    before = validation_return(of, start(), 1)
    assert column(state, "validation_return")[-1].item() == validation_return(of, state.phi, 1)
    assert state.best_return.item() > before + 0.5
    gain = (column(state, "return_after") - column(state, "return_before"))[-3:].mean()
    assert gain > 0.3
    assert counts(state) == dict.fromkeys(COUNT_NAMES, 0)


def test_the_oracle_learns_to_go_to_the_goal_it_is_shown():
    of = search(adaptation(view=WITH_GOAL), inner_steps=0, bound=0.05)
    state = run(of, start(WITH_GOAL), 12)
    assert state.best_return.item() > validation_return(of, start(WITH_GOAL), 0) + 5
    assert column(state, "return_after").isnan().all()


def test_pretraining_has_a_goal_for_each_rollout():
    of = search(inner_steps=0, meta_batch=3)
    state = run(of, start(), 2)
    goals = POINT.draw_goals(generator(0, "meta-training goals", 0), 3 * 10).view(3, 10, 2)
    numbers = generator(0, "meta-training rollouts, iterate 0", 0)
    found = collect(POINT, small_policy(), start().expand(3, -1), goals, 10, 10, numbers, threads=1)
    assert column(state, "return_before")[0].item() == found.returns.mean().item()
    assert column(state, "env_steps")[0].item() == found.mask.sum().item()


def test_a_policy_that_sees_the_goal_has_one_for_the_episodes_that_share_a_baseline(monkeypatch):
    met = []

    def seen(sampler, thetas, goals, numbers):
        met.append(goals)
        return collect(POINT, sampler.policy, thetas, goals, 10, 10, numbers, view=sampler.view)

    monkeypatch.setattr("metalib.locomotion.sampler.Sampler.collect", seen)
    for view in (VIEW, WITH_GOAL):
        next(search(adaptation(view=view), inner_steps=0).run(search().start(start(view), 2)))
    blind, sighted = met
    assert blind.shape == (8, 10, 2)
    assert len(blind.flatten(0, 1).unique(dim=0)) == 80
    assert sighted.shape == (8, 2)
    assert len(sighted.unique(dim=0)) == 8


def test_pretraining_steps_are_those_of_a_policy_that_does_not_adapt():
    pretraining, plain = search(pretraining_steps=2, meta_batch=3), search(inner_steps=0, meta_batch=3)
    *_, before, state = pretraining.run(pretraining.start(start(), 3))
    expected = run(plain, start(), 2)
    assert torch.equal(before.phi, expected.phi)
    for name in ("env_steps", "return_before"):
        assert torch.equal(column(before, name)[:2], column(expected, name))
    assert column(state, "return_after").isfinite().tolist() == [False, False, True]
    *_, adapting = search(meta_batch=3).run(before, 2)  # MAML from there on
    assert torch.equal(state.phi, adapting.phi)
    assert torch.equal(column(state, "env_steps"), column(adapting, "env_steps"))


def test_no_policy_of_the_pretraining_steps_is_chosen():
    of = search(pretraining_steps=2, meta_batch=3, validate_every=1)
    first, second, third = of.run(of.start(start(), 3))
    assert column(second, "validation_return")[:2].isfinite().all()
    assert [int(state.best_step) for state in (first, second, third)] == [0, 0, 3]
    assert third.best_return.item() == column(third, "validation_return")[2].item()


@pytest.mark.parametrize("steps", [-1, 3, 4])
def test_pretraining_that_leaves_nothing_is_refused(steps):
    with pytest.raises(ValueError, match=f"from 0 to 2, got {steps}"):
        search(pretraining_steps=steps).start(start(), 3)


def test_environment_steps_are_those_of_all_iterates():
    state = run(search(meta_batch=2), start(), 3)
    steps = column(state, "env_steps")
    assert torch.equal(steps, steps.round())
    taken = torch.diff(steps, prepend=torch.zeros(1).double())
    assert ((taken > 0) & (taken <= 2 * 2 * 10 * 10)).all()


def test_the_learned_rates_move_too():
    rule = MetaSGD(small_policy().n_parameters, 0.02)
    phi = torch.cat([start(), rule.initial_omega(generator(0, "omega"))])
    state = run(search(adaptation(rule), meta_batch=3), phi, 1)
    assert (state.phi != phi)[small_policy().n_parameters :].any()


def test_same_seed_same_bytes_and_another_seed_others():
    first, again, other = (run(search(meta_batch=2, seed=seed), start(), 2) for seed in (0, 0, 1))
    assert bytes_of(first) == bytes_of(again)
    assert not torch.equal(other.phi, first.phi)


@pytest.mark.parametrize(("stop", "pretraining_steps"), [(1, 0), (2, 0), (1, 1), (1, 2)])
def test_a_stopped_search_goes_on_to_the_same_bytes(stop, pretraining_steps, tmp_path):
    of = search(meta_batch=2, validate_every=1, pretraining_steps=pretraining_steps)
    whole = run(of, start(), 3)
    asked = iter([False] * (stop - 1) + [True])
    checkpoints = Checkpoints(tmp_path / "state.safetensors", "key", 1e9, lambda: next(asked))
    with pytest.raises(Interrupted, match=f"stopped after {stop} steps"):
        for done, state in enumerate(of.run(of.start(start(), 3)), start=1):
            checkpoints.keep(Progress(done, state, {}))
    progress = Checkpoints(tmp_path / "state.safetensors", "key", 1e9).restore(of.start(torch.zeros_like(start()), 3))
    assert progress.steps == stop
    *_, resumed = of.run(progress.state, progress.steps)
    assert bytes_of(resumed) == bytes_of(whole)


def test_validation_keeps_the_best():
    of = search(inner_steps=0, bound=1.0, meta_batch=2, validate_every=2)
    longest = list(of.run(of.start(start(), 15)))
    returns = {step: validation_return(of, state.phi, 0) for step, state in enumerate(longest, 1)}
    # The first length whose last step is not the best: rounding, which differs between processors, decides which it is.
    n_steps = next(n for n in range(5, 16, 2) if returns[n] < max(returns[step] for step in range(2, n, 2)))
    states = list(of.run(of.start(start(), n_steps)))
    looked = [*range(2, n_steps, 2), n_steps]  # every second, and the last
    found = {step: validation_return(of, states[step - 1].phi, 0) for step in looked}
    last = states[-1]
    curve = column(last, "validation_return")
    assert [step for step in range(1, n_steps + 1) if not math.isnan(curve[step - 1])] == looked
    assert [curve[step - 1].item() for step in looked] == list(found.values())
    best = max(found, key=lambda step: found[step])
    assert best != looked[-1]
    assert (last.best_step.item(), last.best_return.item()) == (best, found[best])
    assert torch.equal(last.best_phi, states[best - 1].phi)
    assert not torch.equal(last.best_phi, last.phi)


def test_a_search_without_advantages_stays_and_counts_it():
    of = search(adaptation(rollouts=1, horizon=1), inner_steps=0, meta_batch=2)
    state = run(of, start(), 3)
    assert torch.equal(state.phi, start())
    assert counts(state) == {"non_finite_rollouts": 0, "singular_baseline_fits": 0, "failed_line_searches": 3}


class Spoiled:
    """A sampler whose observations are all equal and whose first rollout of each task broke."""

    def __init__(self, of):
        self.family, self.policy, self.rollouts, self.threads = of.family, of.policy, of.rollouts, of.threads
        self.of = of

    def collect(self, thetas, goals, numbers):
        found = self.of.collect(thetas, goals, numbers)
        broken = torch.zeros_like(found.non_finite)
        broken[:, 0] = True
        return found._replace(observations=torch.ones_like(found.observations), non_finite=broken)


def test_what_goes_wrong_is_counted(monkeypatch):
    monkeypatch.setattr(
        advantages, "fit_values", lambda seen, targets, mask: fit_values(seen, targets, mask, ridge=1e-17)
    )
    adapts = adaptation(rollouts=16, horizon=1)
    of = search(replace(adapts, sampler=Spoiled(adapts.sampler)), meta_batch=2, validate_every=9)
    states = list(of.run(of.start(start(), 2)))
    for step, state in enumerate(states, start=1):
        assert counts(state)["non_finite_rollouts"] == 2 * 2 * step
        assert counts(state)["singular_baseline_fits"] == 2 * 2 * step


@pytest.mark.parametrize("inner_steps", [0, 1])
def test_a_policy_that_is_no_number_stays_is_counted_and_is_never_the_best(inner_steps):
    broken = torch.full_like(start(), torch.nan)
    of = search(inner_steps=inner_steps, meta_batch=2, validate_every=1)
    state = run(of, broken, 1)
    assert counts(state)["non_finite_rollouts"] == (inner_steps + 1) * 2 * 10
    assert counts(state)["failed_line_searches"] == 1
    assert state.phi.isnan().all()
    assert state.best_return.item() == -math.inf
    assert state.best_step.item() == 0


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_replay_repeats_the_iterates_that_acted_to_the_bit(steps):
    of = search(meta_batch=3)
    goals = POINT.draw_goals(generator(0, "goals"), 3)

    def numbers(step):
        return generator(0, "rollouts", step)

    iterates = of.adaptation.iterates(start(), goals, steps, numbers)
    assert torch.equal(of.adaptation.adapted(start(), goals, steps, numbers), iterates[-1].thetas)
    _, divergence = of._problem(iterates).evaluate(start())
    assert divergence.item() == 0.0
    _, elsewhere = of._problem(iterates).evaluate(start() + 0.01)
    assert elsewhere.item() > 0
    if steps:
        others = goals.clone()
        others[1] = -goals[1]
        moved = of.adaptation.adapted(start(), others, steps, numbers)
        assert [torch.equal(*pair) for pair in zip(moved, iterates[-1].thetas, strict=True)] == [True, False, True]


def test_two_threads_make_the_same_search():
    one, two = (run(search(adaptation(threads=threads), meta_batch=4), start(), 1) for threads in (1, 2))
    torch.testing.assert_close(two.phi, one.phi, rtol=0, atol=1e-5)  # matrix products of acting are of another shape
