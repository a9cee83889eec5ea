"""The leader's gradient, exact or estimated from joint trajectories (REINFORCE, eq. 8-10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive._random import Rng, renamed_seed, seed_of
from fastincentive.errors import InputError, invalid
from fastincentive.followers.argument_checks import check_rewards
from fastincentive.followers.followers import PolicyValues
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.kernels import sampling as kernels
from fastincentive.problem.part import ProblemPart

__all__ = ["Exact", "FollowerEstimate", "GradientEstimate", "Reinforce", "centred"]

#: Numbers in the arrays of one block of trajectories.
BLOCK = 2**22
#: Steps of followers in one estimate, which take minutes; more are taken for a mistake.
MOST_STEPS = 9e9
#: Groups of trajectories in a block: sums are taken group by group, whatever the threads.
GROUPS = 16
#: What is subtracted from the weights.
BASELINES = {None: kernels.NONE, "time": kernels.TIME, "leave-one-out": kernels.OTHERS}
#: A sum over time that is not cut by absorption ends where the discount leaves this share.
TAIL = 1e-6


class GradientEstimate(NamedTuple):
    """The leader's value and its gradient in the policy parameters, from trajectories.

    Attributes
    ----------
    value, value_error : float
        V and its standard error.
    gradient, standard_error : array (n, S, A)
        In the parameters: rows of a direct policy less their mean over the available actions, which
        is all that matters on the simplex.
    effective_size : array (n, S)
        Trajectories that met a state; entries of others are 0 and tell nothing.
    trajectories, horizon : int
        How many, and of how many steps at most.
    steps : int
        Joint steps in all.
    """

    value: float
    value_error: float
    gradient: FloatArray
    standard_error: FloatArray
    effective_size: NDArray[np.int64]
    trajectories: int
    horizon: int
    steps: int


class FollowerEstimate(NamedTuple):
    """What trajectories say of the followers' own values.

    Attributes
    ----------
    values : PolicyValues
        V (n, S), Q (n, S, A) and visits (n, S), averages over what was met. Pairs that were not met
        have Q = V of their state, states that were not met 0.
    start_values, standard_error : array (n,)
        V_i from the start, and its standard error.
    """

    values: PolicyValues
    start_values: FloatArray
    standard_error: FloatArray


@dataclass(frozen=True)
class Exact:
    """Exact gradients: the three passes over the marginals."""


@dataclass(frozen=True)
class Reinforce:
    """Gradients from sampled joint trajectories (Williams, 1992; the paper's eq. 8-10).

    The estimate is the mean over trajectories of sum_t w_t grad log pi(a_t|s_t), where w_t is the
    leader's discounted return, or what of it comes at t or later, less a baseline.

    Parameters
    ----------
    trajectories : int
        Joint trajectories of each estimate, at least 2.
    horizon : int, optional
        Steps of a trajectory at most; by default those that the exact passes would go over, or that
        followers need until their discounts leave a millionth, if their values are estimated.
    baseline : None, "time" or "leave-one-out"
        The mean of the other trajectories' w_t at the same time, or of their whole returns. Of the
        others in the same block: no bias comes in.
    reward_to_go : bool
        Leave out of w_t what was earned before t, which the action at t cannot change.
    followers : "exact" or "estimated"
        Whether Algorithm 1 takes the followers' own values, visits and advantages from their models
        or from the same trajectories. Best responses V_i* are exact in both cases.
    exploration : float in [0, 1)
        Share of the uniform choice mixed into the policies before they are sampled. The estimate is
        then the gradient at the mixed policies: actions that a policy never takes are never seen.
    rng : None, int or Generator
        Trajectories depend on it, and on the iteration in a run, not on the threads. Kept as an
        integer: None and a Generator are drawn from once, when the estimator is built.
    seed : int
        Old name of ``rng``, with a warning.

    Notes
    -----
    For a direct policy grad log pi(a|s) is 1 / pi(a|s) at the action taken, which is unbiased only
    up to a constant in each row: baselines, and rewards from before t, add one. The rows are
    therefore given less their means, in the tangent space of the simplex. For a softmax the
    estimates are unbiased as they are.
    """

    trajectories: int = 1000
    horizon: int | None = None
    baseline: Literal["time", "leave-one-out"] | None = "time"
    reward_to_go: bool = True
    followers: Literal["exact", "estimated"] = "exact"
    exploration: float = 0.0
    rng: Rng = 0
    seed: InitVar[int | None] = None

    def __post_init__(self, seed: int | None) -> None:
        """Check the settings."""
        check_fields(self)
        if self.trajectories < 2:
            raise invalid("trajectories", "an integer of at least 2", self.trajectories)
        if self.horizon is not None and self.horizon < 1:
            raise invalid("horizon", "a positive integer or None", self.horizon)
        if self.baseline not in (None, "time", "leave-one-out"):
            raise invalid("baseline", "None, 'time' or 'leave-one-out'", repr(self.baseline))
        if self.followers not in ("exact", "estimated"):
            raise invalid("followers", "'exact' or 'estimated'", repr(self.followers))
        if not 0.0 <= self.exploration < 1.0:
            raise invalid("exploration", "a number in [0, 1)", self.exploration)
        rng = renamed_seed(self.rng, seed, stacklevel=4)
        object.__setattr__(self, "rng", seed_of(rng))

    @checked
    def estimate(
        self,
        problem: ProblemPart,
        policies: FloatArray,
        parameterization: Parameterization | None = None,
        rewards: FloatArray | None = None,
        iteration: int = 0,
    ) -> tuple[GradientEstimate, FollowerEstimate | None]:
        """Estimate the leader's gradient at policies (n, S, A).

        Parameters
        ----------
        problem : IncentiveProblem
        policies : array (n, S, A)
        parameterization : Direct or Softmax, optional
            In whose parameters the gradient is; by default ``Direct()``.
        rewards : array (n, S, A), optional
            The followers' rewards with payments; with them their values are estimated, too.
        iteration : int
            Trajectories of another iteration are others.

        Raises
        ------
        InputError
            If the policies are none, or there are types of followers with counts above 1.
        """
        if iteration < 0:
            raise invalid("iteration", "an integer >= 0", iteration)
        if rewards is not None:
            rewards = check_rewards(rewards, problem.followers.shape, problem.followers.packed)
        problem.refuse_types("sampled trajectories")
        followers, packed = problem.followers, problem.followers.packed
        parameterization = Direct() if parameterization is None else parameterization
        kind, tau = kernels.CENTRED, 1.0
        if isinstance(parameterization, Softmax):
            kind, tau = kernels.SOFTMAX, parameterization.temperature
        policies = self.sampled_policies(problem, policies)
        horizon = self._horizon(problem, policies, rewards is not None)
        ended = self._ended(problem, rewards)
        shape = (GROUPS, *followers.shape)
        sums, squares, visits, returns = (np.zeros(shape) for _ in range(4))
        met = np.zeros(shape[:3], np.int64)
        starts, start_squares = np.zeros(shape[:2]), np.zeros(shape[:2])
        values = np.zeros(2)
        steps = 0
        for drawn in self._blocks(problem, policies, ended, horizon, iteration):
            weights, returned = self._weights(problem, drawn)
            values += returned.sum(), (returned**2).sum()
            steps += int(drawn.length.sum())
            kernels.score_trajectories(
                packed, policies, kind, tau, drawn, weights, sums, squares, met
            )
            if rewards is not None:
                sum_returns = kernels.sum_returns.suited(drawn.length.sum() * problem.n, GROUPS)
                sum_returns(packed.discount, rewards, drawn, visits, returns, starts, start_squares)
        mean, error = _mean_and_error(values[0], values[1], self.trajectories)
        gradient, errors = _mean_and_error(sums.sum(axis=0), squares.sum(axis=0), self.trajectories)
        found = GradientEstimate(
            value=float(mean),
            value_error=float(error),
            gradient=gradient,
            standard_error=errors,
            effective_size=met.sum(axis=0),
            trajectories=self.trajectories,
            horizon=horizon,
            steps=steps,
        )
        if rewards is None:
            return found, None
        counts, total = visits.sum(axis=0), returns.sum(axis=0)
        start, start_error = _mean_and_error(
            starts.sum(axis=0), start_squares.sum(axis=0), self.trajectories
        )
        own = _follower_values(counts, total, self.trajectories, followers.available)
        return found, FollowerEstimate(own, start, start_error)

    @checked
    def sampled_policies(self, problem: ProblemPart, policies: FloatArray) -> FloatArray:
        """Return the policies (n, S, A) that are sampled: with the exploration in them."""
        policies = problem.followers.check_policies(policies)
        if self.exploration == 0.0:
            return policies
        available = problem.followers.available
        even = available / available.sum(axis=2, keepdims=True)
        return np.asarray((1.0 - self.exploration) * policies + self.exploration * even)

    def _horizon(self, problem: ProblemPart, policies: FloatArray, own: bool) -> int:
        if self.horizon is not None:
            return self.horizon
        found = problem.leader_side.forward(policies, measure=True).marginals.shape[0]
        if own:
            largest = float(problem.followers.packed.discount.max())
            if largest < 1.0:
                found = max(found, int(np.ceil(np.log(TAIL) / np.log(max(largest, 1e-3)))))
        return int(found)

    def _ended(self, problem: ProblemPart, rewards: FloatArray | None) -> NDArray[np.bool_]:
        """(n, S) bool: once all followers are in such states nothing is earned any more."""
        packed = problem.followers.packed
        ended = np.zeros(problem.followers.shape[:2], bool)
        if problem.leader_side.free_when_absorbed:
            ended = packed.absorbing[packed.model].copy()
        if rewards is not None:
            paid = np.where(problem.followers.available, rewards, 0.0) != 0.0
            # At discount 1 followers count nothing in absorbing states.
            counts = (packed.discount < 1.0)[:, None]
            ended &= ~(paid.any(axis=2) & counts) & (packed.sink[packed.model] | ~counts)
        return ended

    def _blocks(
        self,
        problem: ProblemPart,
        policies: FloatArray,
        ended: NDArray[np.bool_],
        horizon: int,
        iteration: int,
    ) -> Iterator[kernels.Trajectories]:
        """Draw the trajectories, block by block."""
        most = MOST_STEPS / (horizon * problem.n)
        if self.trajectories > most:
            raise invalid(
                "trajectories",
                f"at most {most:.3g} of {horizon} steps and {problem.n} followers",
                self.trajectories,
                None,
                "More take hours: average several estimates, of other seeds, if they are wanted.",
            )
        packed = problem.followers.packed
        successors = np.empty(packed.probability.size)
        kernels.sum_rows(packed.row_start, packed.probability, successors)
        chances = kernels.CumulativeLaws(
            _cumulative(packed.initial), _cumulative(policies), successors
        )
        size = max(GROUPS, BLOCK // (horizon * problem.n))
        # One more trajectory alone would have no others to compare with.
        blocks = max(1, self.trajectories // size)
        ends = np.linspace(0, self.trajectories, blocks + 1, dtype=np.int64)
        seed = np.random.SeedSequence([seed_of(self.rng), iteration]).generate_state(1, np.uint64)[
            0
        ]
        most = int(np.diff(ends).max())
        room = [np.empty((most, horizon, problem.n), np.int32) for _ in range(2)]
        for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            count = last - first
            states, actions = (array[:count] for array in room)
            length = np.empty(count, np.int64)
            drawn = kernels.Trajectories(states, actions, length, length)
            with np.errstate(over="ignore"):  # 64 bits wrap around, also in plain Python
                simulate = kernels.simulate.suited(states.size, count)
                simulate(packed, chances, ended, seed, first, drawn)
            yield drawn._replace(place=np.cumsum(drawn.length) - drawn.length)

    def _weights(
        self, problem: ProblemPart, drawn: kernels.Trajectories
    ) -> tuple[FloatArray, FloatArray]:
        """Weights of the scores in all steps, end to end, and the returns (B,)."""
        steps = int(drawn.length.sum())
        seen = np.empty((steps, problem.n), np.int32)
        kernels.show_labels(drawn, problem.leader.labels, seen)
        rewards = problem.leader.sampled(seen)
        weights, returned = np.empty(steps), np.empty(drawn.length.size)
        kernels.weigh(
            drawn,
            rewards,
            problem.leader_discount,
            self.reward_to_go,
            BASELINES[self.baseline],
            weights,
            returned,
        )
        return weights, returned


def centred(gradient: FloatArray, available: NDArray[np.bool_]) -> FloatArray:
    """Rows (n, S, A) less their means over the available actions; 0 at others."""
    rows = np.where(available, gradient, 0.0)
    mean = rows.sum(axis=2, keepdims=True) / available.sum(axis=2, keepdims=True)
    return np.where(available, rows - mean, 0.0)


def check_gradient(gradient: object) -> None:
    """Raise unless this is a way to find gradients."""
    if not isinstance(gradient, (Exact, Reinforce)):
        raise InputError(
            f"gradient: expected Exact() or Reinforce(...), got {type(gradient).__name__}"
        )


def _cumulative(chances: FloatArray) -> FloatArray:
    """Cumulative chances along the last axis, which end at 1 in the last place that has some."""
    total = np.cumsum(chances, axis=-1)
    return np.asarray(np.where(total >= total[..., -1:], 1.0, total))


def _mean_and_error(
    total: FloatArray, squares: FloatArray, count: int
) -> tuple[FloatArray, FloatArray]:
    """Mean of ``count`` numbers and its standard error, from their sum and that of squares."""
    mean = np.asarray(total / count)
    variance = np.maximum(squares / count - mean**2, 0.0) * (count / (count - 1.0))
    return mean, np.asarray(np.sqrt(variance / count))


def _follower_values(
    visits: FloatArray, returns: FloatArray, count: int, available: NDArray[np.bool_]
) -> PolicyValues:
    seen = visits > 0.0
    here = visits.sum(axis=2)
    values = np.divide(returns.sum(axis=2), here, out=np.zeros_like(here), where=here > 0.0)
    q_values = np.where(seen, returns / np.where(seen, visits, 1.0), values[:, :, None])
    return PolicyValues(values, np.where(available, q_values, -np.inf), here / count)
