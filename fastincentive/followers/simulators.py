"""Followers known only as simulators: a model is estimated from samples.

Payments change at every iteration, and a model serves all of them: V_i*(x) is the exact optimum of
the estimated model, where Q-learning would have to sample anew for each x.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._random import Rng, renamed_seed
from fastincentive.errors import InputError, invalid
from fastincentive.followers.endings import final_states
from fastincentive.followers.estimates import (
    EstimatedMDP,
    Triples,
    estimated_model,
    warn_of_gaps,
)
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.transition import from_triples

__all__ = ["Simulator", "estimate_mdp"]

#: Discount of the plans that decide where to sample.
PLAN_DISCOUNT = 0.99
#: No more steps than this are simulated, one by one.
MOST_SAMPLES = 10**8
#: Such a plan is made anew this many times.
PLANS = 200


class Simulator(Protocol):
    """One follower's environment: states 0..S-1, actions 0..A-1."""

    n_states: int
    n_actions: int

    def reset(self, rng: np.random.Generator) -> int:
        """Begin an episode, and return its first state."""
        ...

    def step(self, action: int) -> tuple[int, float, bool]:
        """Return the next state, the reward, and whether the episode has ended there."""
        ...


@checked
def estimate_mdp(
    simulator: Any,
    samples: int = 20_000,
    discount: float = 0.95,
    *,
    max_steps: int = 1000,
    rng: Rng = 0,
    seed: int | None = None,
) -> EstimatedMDP:
    """Estimate the model of a follower that can only be simulated.

    Parameters
    ----------
    simulator : Simulator or gymnasium.Env
        ``reset(rng)`` returns a state, ``step(action)`` a state, a reward, and whether the episode
        has ended; ``n_states`` and ``n_actions`` are their numbers. Or a Gymnasium environment with
        Discrete spaces: what it terminates has ended; what it truncates is started anew and no end.
    samples : int
        Steps to simulate.
    discount : float in [0, 1]
        The follower's own.
    max_steps : int
        Episodes that last longer are started anew; that is no end of them either.
    rng : None, int or numpy.random.Generator
        Seed of the first states, and what a ``Simulator`` draws from: the default of 0 gives the
        same samples in every run, None others each time. A generator is drawn from.
    seed : int, optional
        The old name of ``rng``, still accepted with a DeprecationWarning.

    Returns
    -------
    EstimatedMDP

    Raises
    ------
    InputError
        If an argument is not as described, or a state is out of range.

    Warns
    -----
    FewSamplesWarning
        If pairs of states that were seen were tried once or never; it names the first of them.

    Notes
    -----
    Actions are chosen for what they would teach: a plan on the model so far, made anew 200 times,
    earns 1 / N(s,a) for each pair (a bonus as in model-based exploration, Strehl and Littman, 2008,
    but one that falls like the variance of an estimate), and 1 for ever where a pair was never
    tried.
    """
    rng = renamed_seed(rng, seed)
    source = _as_source(simulator)
    for name, number, least in (("samples", samples, 1), ("max_steps", max_steps, 1)):
        if number < least:
            raise invalid(name, "a positive integer", number)
    if samples > MOST_SAMPLES:
        raise invalid("samples", f"at most {MOST_SAMPLES:g}, which take hours", samples)
    generator = np.random.default_rng(rng)
    states, actions = source.n_states, source.n_actions
    seen: dict[tuple[int, int, int, bool], list[float]] = {}
    visits = np.zeros((states, actions), np.int64)
    starts = np.zeros(states, np.int64)
    continuation = np.zeros((states, actions))  # of the plan: what comes after the pair
    state, age = -1, 0
    every = max(1, samples // PLANS)
    for k in range(samples):
        if state < 0:
            state, age = _checked_state(source.reset(generator), states, "the reset"), 0
            starts[state] += 1
        if k % every == 0:
            continuation = _plan_values(seen, visits, starts)
        action = int(np.argmax(1.0 / np.maximum(visits[state], 1) + continuation[state]))
        found, reward, ended, cut = source.step(action)
        following = _checked_state(found, states, f"the step from state {state}, action {action}")
        if not np.isfinite(reward):
            where = f"action {action} in state {state}"
            raise invalid("simulator", "finite rewards", reward, where)
        _count(seen.setdefault((state, action, following, bool(ended)), [0, 0.0, 0.0]), reward)
        visits[state, action] += 1
        age += 1
        state = -1 if ended or cut or age >= max_steps else following
    estimate = _build_estimate(seen, visits, starts, discount)
    warn_of_gaps([estimate], stacklevel=3)
    return estimate


def _count(tally: list[float], reward: float) -> None:
    """Add a reward to number, mean and sum of squared distances (Welford, 1962)."""
    tally[0] += 1
    above = reward - tally[1]
    tally[1] += above / tally[0]
    tally[2] += above * (reward - tally[1])


class _Source(Protocol):
    """A simulator that also says whether an episode was cut rather than ended."""

    n_states: int
    n_actions: int

    def reset(self, rng: np.random.Generator) -> int: ...

    def step(self, action: int) -> tuple[int, float, bool, bool]: ...


class _PlainSource:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.n_states, self.n_actions = simulator.n_states, simulator.n_actions
        self.reset = simulator.reset

    def step(self, action: int) -> tuple[int, float, bool, bool]:
        state, reward, ended = self._simulator.step(action)
        return state, float(reward), ended, False


class _GymnasiumSource:
    def __init__(self, env: Any) -> None:
        self._env = env
        sizes, first = [], []
        for name in ("observation_space", "action_space"):
            space = getattr(env, name)
            size = getattr(space, "n", None)
            if not isinstance(size, (int, np.integer)):
                raise invalid("simulator", f"a Discrete {name}", type(space).__name__)
            sizes.append(int(size))
            first.append(int(getattr(space, "start", 0)))
        self.n_states, self.n_actions = sizes
        self._first_state, self._first_action = first
        self._seeded = False

    def reset(self, rng: np.random.Generator) -> int:
        seed = None if self._seeded else int(rng.integers(2**31))
        self._seeded = True
        state, _ = self._env.reset(seed=seed)
        return int(state) - self._first_state

    def step(self, action: int) -> tuple[int, float, bool, bool]:
        state, reward, ended, cut, _ = self._env.step(action + self._first_action)
        return int(state) - self._first_state, float(reward), bool(ended), bool(cut)


def _as_source(simulator: Any) -> _Source:
    if hasattr(simulator, "observation_space") and hasattr(simulator, "action_space"):
        return _GymnasiumSource(simulator)
    for name in ("reset", "step", "n_states", "n_actions"):
        if not hasattr(simulator, name):
            raise InputError(
                "simulator: expected reset(rng), step(action), n_states and n_actions, or a "
                f"Gymnasium environment, got {type(simulator).__name__} without {name}"
            )
    return _PlainSource(simulator)


def _checked_state(state: Any, states: int, where: str) -> int:
    if not (isinstance(state, (int, np.integer)) and 0 <= state < states):
        raise invalid("simulator", f"states 0..{states - 1}", repr(state), where)
    return int(state)


def _plan_values(
    seen: dict[tuple[int, int, int, bool], list[float]],
    visits: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> FloatArray:
    """Tell what a pair (S, A) leads on to learn, beyond itself; episodes are started anew."""
    states, actions = visits.shape
    keys = np.array([*seen], np.int64).reshape(-1, 4)
    count = np.array([each[0] for each in seen.values()], float)
    # The last state stands for the next episode.
    untried = np.flatnonzero(visits.reshape(-1) == 0)
    begins = np.flatnonzero(starts)
    tried = keys[:, 0] * actions + keys[:, 1]
    available = np.ones((states + 1, actions), bool)
    available[states, 1:] = False
    model = from_triples(
        np.concatenate([tried, untried, np.full(begins.size, states * actions)]),
        np.concatenate([np.where(keys[:, 3] == 1, states, keys[:, 2]), untried // actions, begins]),
        np.concatenate(
            [
                count / visits.reshape(-1)[tried],
                np.ones(untried.size),
                starts[begins] / starts.sum(),
            ]
        ),
        available,
    )
    bonus = np.vstack([1.0 / np.maximum(visits, 1), np.zeros((1, actions))])
    followers = Followers([TabularMDP.of_model(model, bonus, PLAN_DISCOUNT, states)])
    return np.asarray(followers.best_responses(followers.rewards).q_values[0] - bonus)[:states]


def _build_estimate(
    seen: dict[tuple[int, int, int, bool], list[float]],
    visits: NDArray[np.int64],
    starts: NDArray[np.int64],
    discount: float,
) -> EstimatedMDP:
    states, actions = visits.shape
    keys = sorted(seen)
    origin, action, following = (np.array([key[j] for key in keys]) for j in range(3))
    ended = np.array([key[3] for key in keys])
    count, mean, squares = (np.array([seen[key][j] for key in keys]) for j in range(3))
    final = final_states(starts, origin, following, ended)
    triples = Triples(
        pairs=origin * actions + action,
        successors=np.where(ended & ~final[following], states, following),
        counts=count.astype(np.int64),
        rewards=mean,
        squares=squares,
    )
    mdp = estimated_model(visits, starts, triples, discount)
    return EstimatedMDP(mdp, visits, starts, final, triples)
