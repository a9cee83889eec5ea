"""Gradients against each other: exact, estimated in every form, and by finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._random import Rng, renamed_seed, seed_of
from fastincentive._tables import small, text_table
from fastincentive.errors import invalid, shown
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.followers.single import uniform_policies
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.sampled_gradients import GradientEstimate, Reinforce, centred

__all__ = ["FORMS", "GradientAudit", "audit_gradients"]

#: The forms of REINFORCE: the paper's own, and those with less variance.
FORMS = {
    "total return": Reinforce(baseline=None, reward_to_go=False),
    "total return, leave-one-out": Reinforce(baseline="leave-one-out", reward_to_go=False),
    "reward to go": Reinforce(baseline=None),
    "reward to go, leave-one-out": Reinforce(baseline="leave-one-out"),
    "reward to go, time": Reinforce(baseline="time"),
}
#: Standard errors within which nearly all entries of an unbiased estimate lie.
WITHIN = 4.0
#: Entries that finite differences look at, and their step.
DIFFERENCES, STEP = 40, 1e-5


@dataclass(frozen=True)
class GradientAudit:
    """What ``audit_gradients`` found.

    Attributes
    ----------
    exact : array (n, S, A)
        The exact gradient in the parameters; rows of direct policies less their means.
    value : float
        The exact value.
    estimates : dict of str to GradientEstimate
    difference : float
        Largest difference between the exact gradient and central differences of the exact value,
        over the largest entry.
    differences : int
        Entries that were compared.
    """

    exact: FloatArray
    value: float
    estimates: dict[str, GradientEstimate]
    difference: float
    differences: int

    @checked
    def bias(self, name: str) -> FloatArray:
        """Errors of an estimate in units of its standard error, in entries that have one."""
        found = self._named(name)
        seen = found.standard_error > 0.0
        return np.asarray((found.gradient - self.exact)[seen] / found.standard_error[seen])

    def _named(self, name: str) -> GradientEstimate:
        if name not in self.estimates:
            raise invalid("name", f"one of {list(self.estimates)}", shown(name))
        return self.estimates[name]

    @checked
    def within(self, name: str) -> float:
        """Share of the entries within four standard errors of the exact ones."""
        off = np.abs(self.bias(name))
        return float((off <= WITHIN).mean()) if off.size else 1.0

    @checked
    def variance(self, name: str) -> float:
        """Variance of one trajectory's estimate, summed over all entries."""
        found = self._named(name)
        return float((found.standard_error**2).sum() * found.trajectories)

    def __str__(self) -> str:
        """Return a table, one row per estimator."""
        plain = self.variance(next(iter(self.estimates)))
        rows = []
        for name, found in self.estimates.items():
            met = found.effective_size[found.effective_size > 0]
            off = found.value - self.value
            rows.append(
                [
                    name,
                    f"{off / max(found.value_error, 1e-300):+.2f}",
                    f"{100.0 * self.within(name):.2f} %",
                    f"{np.abs(self.bias(name)).max(initial=0.0):.2f}",
                    small(self.variance(name), 2),
                    f"{self.variance(name) / plain:.3f}" if plain > 0.0 else "",
                    f"{met.min(initial=found.trajectories)} to {met.max(initial=0)}",
                ]
            )
        header = [
            "estimator",
            "value off",
            f"within {WITHIN:g} s.e.",
            "largest off",
            "variance",
            "of the first",
            "trajectories by state",
        ]
        first = next(iter(self.estimates.values()))
        return (
            f"{text_table(header, rows, 'lrrrrrr')}\n\n"
            f"{first.trajectories} trajectories each, {first.steps} joint steps of at most "
            f"{first.horizon}; 'off' in standard errors.\n"
            f"Finite differences: {small(self.difference)} of the largest entry, "
            f"{self.differences} entries."
        )


@checked
def audit_gradients(
    problem: IncentiveProblem,
    policies: ArrayLike | None = None,
    parameterization: Parameterization | None = None,
    estimators: dict[str, Reinforce] | Sequence[str] | None = None,
    *,
    trajectories: int = 20_000,
    rng: Rng = 0,
    seed: int | None = None,
) -> GradientAudit:
    """Compare the leader's exact gradient with estimates, and with finite differences.

    Parameters
    ----------
    problem : IncentiveProblem
    policies : array (n, S, A), optional
        By default the uniform ones. Actions that are never taken are never sampled: their entries
        cannot be estimated.
    parameterization : Direct or Softmax, optional
        By default ``Direct()``.
    estimators : dict of str to Reinforce, or sequence of names, optional
        By default all ``audit.FORMS``; their trajectories and seeds are those given here.
    trajectories : int
        For each estimate.
    rng : None, int or numpy.random.Generator
        What trajectories and the entries for finite differences are drawn with: the default of 0
        gives the same ones in every run, None others each time.
    seed : int, optional
        The old name of ``rng``, still accepted with a DeprecationWarning.

    Returns
    -------
    GradientAudit
        ``str`` gives a table: errors in standard errors, variances, and sample sizes.

    Raises
    ------
    InputError
        If the policies are none, an estimator is not known, or there are types of followers.
    """
    drawn_with = seed_of(renamed_seed(rng, seed))
    followers = problem.followers
    given = uniform_policies(followers) if policies is None else policies
    checked = followers.check_policies(given)
    parameterization = Direct() if parameterization is None else parameterization
    if estimators is None:
        estimators = FORMS
    elif not isinstance(estimators, dict):
        unknown = [name for name in estimators if name not in FORMS]
        if unknown:
            raise invalid("estimators", f"names among {list(FORMS)}", repr(unknown[0]))
        estimators = {name: FORMS[name] for name in estimators}
    if not estimators:
        raise invalid("estimators", "at least one", "none")
    estimates = {}
    for name, each in estimators.items():
        chosen = replace(each, trajectories=trajectories, rng=drawn_with)
        estimates[name], _ = chosen.estimate(problem, checked, parameterization)
    exact = problem.leader_gradient(checked)
    slope = _in_parameters(problem, exact, checked, parameterization)
    off, count = _finite_differences(problem, exact, checked, np.random.default_rng(drawn_with))
    return GradientAudit(slope, problem.leader_value(checked), estimates, off, count)


def _in_parameters(
    problem: IncentiveProblem,
    gradient: FloatArray,
    policies: FloatArray,
    parameterization: Parameterization,
) -> FloatArray:
    if isinstance(parameterization, Softmax):
        return parameterization.gradient(gradient, policies)
    return centred(gradient, problem.followers.available)


def _finite_differences(
    problem: IncentiveProblem, exact: FloatArray, policies: FloatArray, rng: np.random.Generator
) -> tuple[float, int]:
    """Largest difference to central differences along rows of the simplex, relative; their count.

    Mass moves from an action to another of the same state; the value is as smooth outside the
    simplex, so that policies at its border can be looked at, too.
    """
    choices = np.argwhere(problem.followers.available.sum(axis=2) > 1)
    picked = rng.permutation(len(choices))[:DIFFERENCES]
    largest, slopes = 0.0, [1e-300]
    for i, s in choices[picked]:
        a, b = rng.permutation(np.flatnonzero(problem.followers.available[i, s]))[:2]
        values = []
        for step in (STEP, -STEP):
            moved = policies.copy()
            moved[i, s, a] += step
            moved[i, s, b] -= step
            values.append(problem.leader_pass(moved, gradient=False).value)
        slope = float(exact[i, s, a] - exact[i, s, b])
        slopes.append(abs(slope))
        largest = max(largest, abs((values[0] - values[1]) / (2.0 * STEP) - slope))
    return largest / max(slopes), len(picked)
