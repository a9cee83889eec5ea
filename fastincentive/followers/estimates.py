"""Models estimated from samples, and the models that the same samples allow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked, one_of
from fastincentive.errors import FewSamplesWarning
from fastincentive.followers.endings import mdp_with_sink
from fastincentive.followers.mdp import TabularMDP

__all__ = ["GUESSES", "EstimatedMDP", "Triples", "estimated_model", "warn_of_gaps"]

#: What may be guessed of outcomes that were never seen, see ``EstimatedMDP.resample``.
GUESSES = ("anywhere", "alike", "lure")
#: How many outcomes that were never seen a draw gives to each pair.
UNSEEN = 4
#: Concentrations of outcomes, all magnitudes alike before anything is seen.
CONCENTRATIONS = np.geomspace(1e-3, 1e2, 61)
#: At discount 1 the Sink has this share of what was never tried, or nothing might ever end.
LEAK = 0.05
#: Pairs that a warning names.
NAMED = 5


class Triples(NamedTuple):
    """What was seen: E different (state, action, successor), the Sink among the successors."""

    pairs: NDArray[np.int64]  # (E,) s * A + a
    successors: NDArray[np.int64]  # (E,)
    counts: NDArray[np.int64]  # (E,)
    rewards: FloatArray  # (E,) means
    squares: FloatArray  # (E,) sums of squared distances from these


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
    final : bool array (S,)
        States in which every episode that came there ended.
    triples : Triples
        What the model is made of.
    """

    mdp: TabularMDP
    visits: NDArray[np.int64]
    starts: NDArray[np.int64]
    final: NDArray[np.bool_]
    triples: Triples

    @property
    def samples(self) -> int:
        """Steps that were simulated."""
        return int(self.visits.sum())

    @property
    def episodes(self) -> int:
        """Episodes that were begun."""
        return int(self.starts.sum())

    @property
    def known(self) -> NDArray[np.bool_]:
        """(S,) bool: states that were seen and in which play goes on."""
        met = self.starts > 0
        met[self.triples.successors[self.triples.successors < met.size]] = True
        return np.asarray(met & ~self.final)

    def seldom(self, most: int = 1) -> NDArray[np.int64]:
        """Pairs (k, 2) of states that were seen, which were tried at most so often."""
        return np.argwhere((self.visits <= most) & self.known[:, None])

    @checked
    def resample(
        self, rng: np.random.Generator, guess: str = "anywhere", target: int | None = None
    ) -> TabularMDP:
        """Draw a model that the samples allow.

        Parameters
        ----------
        rng : numpy.random.Generator
        guess : {"anywhere", "alike", "lure"}
            Where outcomes that were never seen lead: to any state or the Sink, each as likely; or
            by a step between state numbers that some pair with this action has shown, as on a grid.
            Their rewards are rewards seen. "lure" is as the first, but what was never tried leads
            to one state and earns more than all that was seen: the follower leaves for the unknown.
        target : int, optional
            That state or the Sink; by default drawn.

        Returns
        -------
        TabularMDP
            Chances of successors, and of first states, are drawn from the posterior of a Dirichlet
            process (Ferguson, 1973), a Bayesian bootstrap (Rubin, 1981) in which outcomes never
            seen have a share, too. How large that is, its concentration, is drawn given how often
            pairs showed something new (Ewens, 1972). So is each mean reward, given how its samples
            spread.
        """
        one_of("guess", guess, GUESSES)
        seen, states = self.triples, self.starts.size
        goes_on = np.flatnonzero(np.repeat(~self.final, self.visits.shape[1]))
        tried = self.visits.reshape(-1)[goes_on] > 0
        new = np.repeat(goes_on, UNSEEN)
        fresh = np.repeat(~tried, UNSEEN)
        share = float(rng.choice(CONCENTRATIONS, p=self._concentrations[0]))
        weight = rng.standard_gamma(np.full(new.size, share / UNSEEN))
        weight[::UNSEEN][~tried & (weight.reshape(-1, UNSEEN).sum(axis=1) == 0.0)] = 1.0
        where, paid = self._guessed(new, guess, rng)
        if guess == "lure":
            low, high = min(seen.rewards.min(), 0.0), max(seen.rewards.max(), 0.0)
            where[fresh] = rng.integers(states + 1) if target is None else target
            paid[fresh] = high + (high - low if high > low else 1.0)
        spread = np.sqrt((seen.squares + _pooled(seen)) / seen.counts)
        earned = seen.rewards + spread / np.sqrt(seen.counts) * rng.standard_normal(spread.size)
        pairs = np.concatenate([seen.pairs, new])
        chance = np.concatenate([rng.standard_gamma(seen.counts), weight])
        chance /= np.bincount(pairs, chance, self.visits.size)[pairs]
        successors = np.concatenate([seen.successors, where])
        rewards = np.concatenate([earned, paid])
        if self.mdp.discount == 1.0:
            left = np.flatnonzero(chance * np.concatenate([np.zeros(seen.pairs.size), fresh]))
            pairs = np.concatenate([pairs, pairs[left]])
            rewards = np.concatenate([rewards, rewards[left]])
            successors = np.concatenate([successors, np.full(left.size, states)])
            chance = np.concatenate([chance, LEAK * chance[left]])
            chance[left] *= 1.0 - LEAK
        mean = np.bincount(pairs, chance * rewards, self.visits.size).astype(float)
        return mdp_with_sink(
            pairs,
            successors,
            chance,
            mean.reshape(self.visits.shape),
            np.ones(self.visits.shape, bool),
            self._first_states(rng),
            self.mdp.discount,
        )

    @cached_property
    def _concentrations(self) -> tuple[FloatArray, FloatArray]:
        """Chances of the concentration of successors, and of first states."""
        return (
            concentrations(self.visits[self.visits > 0], self.triples.counts.size),
            concentrations(self.starts.sum(keepdims=True), int(np.count_nonzero(self.starts))),
        )

    def _guessed(
        self, pairs: NDArray[np.int64], guess: str, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Successors and rewards of outcomes of these pairs that were never seen."""
        seen, (states, actions) = self.triples, self.visits.shape
        example = rng.integers(seen.pairs.size, size=pairs.size)
        where = rng.integers(states + 1, size=pairs.size)
        if guess == "alike":
            for a in range(actions):
                like = np.flatnonzero(seen.pairs % actions == a)
                mine = np.flatnonzero(pairs % actions == a)
                if like.size:
                    example[mine] = like[rng.integers(like.size, size=mine.size)]
            step = seen.successors[example] - seen.pairs[example] // actions
            moved = np.where(seen.successors[example] == states, states, pairs // actions + step)
            where = np.where((moved >= 0) & (moved <= states), moved, where)
        paid = seen.rewards[example]
        return where, paid

    def _first_states(self, rng: np.random.Generator) -> FloatArray:
        """Draw the chances of first states (S,)."""
        seen = np.flatnonzero(self.starts)
        share = float(rng.choice(CONCENTRATIONS, p=self._concentrations[1]))
        others = rng.choice(np.flatnonzero(~self.final), UNSEEN)
        weight = np.bincount(seen, rng.standard_gamma(self.starts[seen]), self.starts.size)
        np.add.at(weight, others, rng.standard_gamma(np.full(UNSEEN, share / UNSEEN)))
        return np.asarray(weight / weight.sum())


def concentrations(counts: NDArray[np.int64], kinds: int) -> FloatArray:
    """Chances of ``CONCENTRATIONS`` of Dirichlet processes of which ``counts`` samples were seen.

    ``kinds`` is the number of different outcomes of all of them together. Ewens' formula gives
    the likelihood: a**kinds times Gamma(a) / Gamma(a + count) for each of them.
    """
    number, times = np.unique(counts, return_counts=True)
    log = [
        kinds * math.log(a)
        + sum(
            t * (math.lgamma(a) - math.lgamma(a + n))
            for n, t in zip(number.tolist(), times.tolist(), strict=True)
        )
        for a in CONCENTRATIONS.tolist()
    ]
    likely = np.exp(np.array(log) - max(log))
    return np.asarray(likely / likely.sum())


def _pooled(seen: Triples) -> float:
    """Variance of rewards of one and the same triple, over all of them."""
    repeated = int((seen.counts - 1).sum())
    return float(seen.squares.sum()) / repeated if repeated else 0.0


def estimated_model(
    visits: NDArray[np.int64], starts: NDArray[np.int64], triples: Triples, discount: float
) -> TabularMDP:
    """Build the most likely model, pessimistic of what was never tried."""
    share = triples.counts / visits.reshape(-1)[triples.pairs]
    reward = np.bincount(triples.pairs, share * triples.rewards, visits.size).astype(float)
    # States without any sample lead to the Sink for nothing; others' untried actions lose most.
    untried = (visits == 0) & (visits > 0).any(axis=1, keepdims=True)
    reward[untried.reshape(-1)] = triples.rewards.min()
    return mdp_with_sink(
        triples.pairs,
        triples.successors,
        share,
        reward.reshape(visits.shape),
        np.ones(visits.shape, bool),
        starts / starts.sum(),
        discount,
    )


def warn_of_gaps(estimates: Sequence[EstimatedMDP | None], stacklevel: int) -> None:
    """Warn of pairs that were tried once or never, and name some."""
    for i, estimate in enumerate(estimates):
        if estimate is None or not (few := estimate.seldom()).size:
            continue
        never = estimate.seldom(0)
        first = (never if never.size else few)[:NAMED].tolist()
        warnings.warn(
            f"in the states of follower {i} that were seen, {len(never)} pairs were never tried "
            f"and {len(few) - len(never)} only once: "
            + ", ".join(f"(state {s}, action {a})" for s, a in first)
            + (" and others" if len(few) > len(first) else "")
            + ". What is known of them is a guess; take more samples.",
            FewSamplesWarning,
            stacklevel=stacklevel + 1,
        )
