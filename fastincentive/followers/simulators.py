"""Followers known only as simulators: a model is estimated from samples.

Payments change at every iteration, and a model serves all of them: V_i*(x) is the exact optimum of
the estimated model, where Q-learning would have to sample anew for each x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._random import Rng, renamed_seed
from fastincentive.errors import InputError, invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP

__all__ = ["EstimatedMDP", "Simulator", "Triples", "estimate_mdp", "mdp_from_gymnasium"]

#: Discount of the plans that decide where to sample.
PLAN_DISCOUNT = 0.99
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


class Triples(NamedTuple):
    """What was seen: E different (state, action, successor), the Sink among the successors."""

    pairs: NDArray[np.int64]  # (E,) s * A + a
    successors: NDArray[np.int64]  # (E,)
    counts: NDArray[np.int64]  # (E,)
    rewards: FloatArray  # (E,) means


@dataclass(frozen=True)
class EstimatedMDP:
    """A follower's model as seen in samples.

    Attributes
    ----------
    mdp : TabularMDP
        S + 1 states, the last of which is the Sink: where episodes end, with reward 0 for ever. A
        state in which every episode that came there ended keeps its number, and leads to the Sink.
        Pairs that were never tried lead to the Sink, with the lowest reward seen.
    visits : int array (S, A)
        Samples of each pair.
    starts : int array (S,)
        First states of episodes.
    triples : Triples
        What the model is made of.
    """

    mdp: TabularMDP
    visits: NDArray[np.int64]
    starts: NDArray[np.int64]
    triples: Triples

    @property
    def samples(self) -> int:
        """Steps that were simulated."""
        return int(self.visits.sum())

    @property
    def episodes(self) -> int:
        """Episodes that were begun."""
        return int(self.starts.sum())

    def resample(self, rng: np.random.Generator) -> TabularMDP:
        """Draw a model that the samples allow: the Bayesian bootstrap (Rubin, 1981).

        Successors of each pair, and first states, have Dirichlet chances with the counts as
        parameters. What was seen with one outcome alone is certain in every draw.
        """
        pairs = self.triples.pairs
        weights = rng.standard_gamma(self.triples.counts)
        total = np.bincount(pairs, weights, minlength=self.visits.size)
        initial = np.zeros(self.mdp.n_states)
        seen = np.flatnonzero(self.starts)
        initial[seen] = rng.dirichlet(self.starts[seen])
        share = weights / total[pairs]
        return _build_model(self.visits, self.triples, share, initial, self.mdp.discount)


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
        tally = seen.setdefault((state, action, following, bool(ended)), [0, 0.0])
        tally[0] += 1
        tally[1] += reward
        visits[state, action] += 1
        age += 1
        state = -1 if ended or cut or age >= max_steps else following
    return _build_estimate(seen, visits, starts, discount)


def mdp_from_gymnasium(env: Any, discount: float = 0.95) -> TabularMDP:
    """Read the model of a Gymnasium environment that has a table, as toy-text ones do.

    Parameters
    ----------
    env : gymnasium.Env
        With ``P[s][a]``, a list of (probability, next state, reward, terminated), and
        ``initial_state_distrib``.
    discount : float in [0, 1]

    Returns
    -------
    TabularMDP
        S + 1 states, numbered as those of ``estimate_mdp``, the last one the Sink. A state in which
        every episode that comes there has ended keeps its number, and leads to the Sink.

    Raises
    ------
    InputError
        If there is no such table.
    """
    table = getattr(getattr(env, "unwrapped", env), "P", None)
    start = getattr(getattr(env, "unwrapped", env), "initial_state_distrib", None)
    if table is None or start is None:
        raise invalid(
            "env",
            "a Gymnasium environment with P and initial_state_distrib",
            type(getattr(env, "unwrapped", env)).__name__,
            remedy="estimate_mdp needs no table.",
        )
    states, actions = len(table), len(table[0])
    rows = [
        (s, a, int(following), bool(ended), float(p), float(reward))
        for s in range(states)
        for a in range(actions)
        for p, following, reward, ended in table[s][a]
    ]
    s, a, following, ended, p, reward = (np.array(column) for column in zip(*rows, strict=True))
    final = _final_states(states, s, following, ended)
    transition = np.zeros((states + 1, actions, states + 1))
    earned = np.zeros((states + 1, actions))
    goes = np.where(ended & ~final[following], states, following)
    own = ~final[s]
    np.add.at(transition, (s[own], a[own], goes[own]), p[own])
    np.add.at(earned, (s[own], a[own]), (p * reward)[own])
    transition[:-1][final] = 0.0
    transition[np.append(final, True), :, states] = 1.0
    return TabularMDP(transition, earned, discount, np.append(start, 0.0))


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


def _final_states(
    states: int,
    origin: NDArray[np.int64],
    following: NDArray[np.int64],
    ended: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(S,) bool: states in which every episode that came there from elsewhere has ended."""
    came = origin != following
    final = np.zeros(states, bool)
    final[following[came & ended]] = True
    final[following[came & ~ended]] = False
    return final


def _plan_values(
    seen: dict[tuple[int, int, int, bool], list[float]],
    visits: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> FloatArray:
    """Tell what a pair (S, A) leads on to learn, beyond itself; episodes are started anew."""
    states, actions = visits.shape
    transition = np.zeros((states, actions, states))
    begins = starts / starts.sum()
    for (s, a, following, ended), (count, _) in seen.items():
        if ended:
            transition[s, a] += count * begins
        else:
            transition[s, a, following] += count
    untried = visits == 0
    transition /= np.maximum(visits, 1)[:, :, None]
    transition[untried] = np.eye(states)[np.nonzero(untried)[0]]
    bonus = 1.0 / np.maximum(visits, 1)
    followers = Followers([TabularMDP(transition, bonus, PLAN_DISCOUNT, begins)])
    return np.asarray(followers.best_responses(followers.rewards).q_values[0] - bonus)


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
    count, total = (np.array([seen[key][j] for key in keys]) for j in range(2))
    final = _final_states(states, origin, following, ended)
    triples = Triples(
        pairs=origin * actions + action,
        successors=np.where(ended & ~final[following], states, following),
        counts=count.astype(np.int64),
        rewards=total / count,
    )
    share = triples.counts / visits.reshape(-1)[triples.pairs]
    initial = np.append(starts / starts.sum(), 0.0)
    mdp = _build_model(visits, triples, share, initial, discount)
    return EstimatedMDP(mdp, visits, starts, triples)


def _build_model(
    visits: NDArray[np.int64],
    triples: Triples,
    share: FloatArray,
    initial: FloatArray,
    discount: float,
) -> TabularMDP:
    """Build the model in which triples have these shares (E,) of their pairs."""
    states, actions = visits.shape
    transition = np.zeros(((states + 1) * actions, states + 1))
    reward = np.zeros((states + 1) * actions)
    np.add.at(transition, (triples.pairs, triples.successors), share)
    np.add.at(reward, triples.pairs, share * triples.rewards)
    # States without any sample lead to the Sink for nothing; others' untried actions lose most.
    tried = np.asarray(visits > 0)
    untried = ~tried & tried.any(axis=1, keepdims=True)
    reward[: states * actions][untried.reshape(-1)] = triples.rewards.min()
    nowhere = transition.sum(axis=1) == 0.0
    transition[nowhere, states] = 1.0
    shape = (states + 1, actions)
    return TabularMDP(
        transition.reshape(*shape, states + 1),
        reward.reshape(shape),
        discount,
        initial,
    )
