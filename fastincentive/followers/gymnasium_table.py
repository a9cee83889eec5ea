"""Models read from the tables of Gymnasium environments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import as_numbers
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.endings import final_states, mdp_with_sink
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.transition import in_double

__all__ = ["mdp_from_gymnasium"]

#: Actions have smaller numbers, or something else is meant.
MOST_ACTIONS = 2**20
#: What is read of each possible outcome of a pair.
OUTCOME = np.dtype(
    [
        ("state", np.int64),
        ("action", np.int64),
        ("probability", float),
        ("following", np.int64),
        ("reward", float),
        ("ended", bool),
    ]
)


@checked
def mdp_from_gymnasium(env: Any, discount: float = 0.95) -> TabularMDP:
    """Read the model of a Gymnasium environment that has a table, as toy-text ones do.

    Parameters
    ----------
    env : gymnasium.Env
        With ``P[s][a]``, a list of (probability, next state, reward, terminated), and
        ``initial_state_distrib`` (S,). Pairs that the table leaves out are unavailable; a state
        without any ends the episode.
    discount : float in [0, 1]

    Returns
    -------
    TabularMDP
        S + 1 states, numbered as those of ``estimate_mdp``, the last one the Sink. A state in which
        every episode that comes there has ended keeps its number, and leads to the Sink. Time and
        memory grow with the outcomes listed.

    Raises
    ------
    InputError
        If there is no such table, or it is not as described; the message names state and action.

    Notes
    -----
    The table is what counts, not ``step()``: what an environment does there beyond its table is not
    in the model and cannot be seen from it, such as Taxi's ``fickle_passenger``, time limits and
    other truncation, and whatever wrappers change of actions, observations and rewards.
    ``estimate_mdp`` samples ``step()``, and shows where the two differ.

    Only episodes from ``initial_state_distrib`` are looked at to find out where they end. States
    that these never come to keep their number and their moves; a model that is to start there may
    need other ends.
    """
    inner = getattr(env, "unwrapped", env)
    table, starts = (getattr(inner, name, None) for name in ("P", "initial_state_distrib"))
    if table is None or starts is None:
        raise invalid(
            "env",
            "a Gymnasium environment with P and initial_state_distrib",
            type(inner).__name__,
            remedy="estimate_mdp needs no table.",
        )
    initial = in_double(as_numbers("env.initial_state_distrib", starts))
    if initial.ndim != 1 or not initial.size:
        raise invalid("env.initial_state_distrib", "one chance for each state", initial.shape)
    states = initial.size
    rows = np.fromiter(_outcomes(table, states), OUTCOME)
    bad = ~(rows["probability"] >= 0.0) | ~np.isfinite(rows["probability"])
    if bad.any():
        s, a, p = rows[int(np.argmax(bad))].item()[:3]
        raise invalid("env.P", "finite probabilities >= 0", p, f"state {s}, action {a}")
    rows = rows[rows["probability"] > 0.0]
    s, following, ended = rows["state"], rows["following"], rows["ended"]
    reached = _reached(initial, s[~ended], following[~ended])
    seen = reached[s]
    final = final_states(initial, s[seen], following[seen], ended[seen])
    actions = max(
        int(rows["action"].max(initial=0)) + 1,
        int(getattr(getattr(inner, "action_space", None), "n", 0)),
    )
    own = ~final[s]
    pairs = s * actions + rows["action"]
    available = np.zeros(states * actions, bool)
    available[pairs[own]] = True
    gain = rows["probability"] * rows["reward"]
    earned = np.bincount(pairs[own], gain[own], states * actions).astype(float)
    return mdp_with_sink(
        pairs[own],
        np.where(ended & ~final[following], states, following)[own],
        rows["probability"][own],
        earned.reshape(states, actions),
        available.reshape(states, actions) | final[:, None],
        initial,
        discount,
    )


def _outcomes(table: Any, states: int) -> Iterator[tuple[Any, ...]]:
    """Yield the outcomes in a table, a dict or a list of dicts or lists."""
    for s, choices in _items(table, "P", states):
        for a, outcomes in _items(choices, f"P[{s}]", MOST_ACTIONS):
            if not isinstance(outcomes, (list, tuple)):
                raise invalid(f"env.P[{s}][{a}]", "a list", type(outcomes).__name__)
            for outcome in outcomes:
                try:
                    p, following, reward, ended = outcome
                    row = (s, a, float(p), int(following), float(reward), bool(ended))
                except (TypeError, ValueError, OverflowError):
                    got: Any = repr(outcome)
                    expected = "(probability, next state, reward, terminated)"
                else:
                    if 0 <= row[3] < states and following == row[3]:
                        yield row
                        continue
                    got, expected = following, f"next states in 0..{states - 1}"
                raise invalid("env.P", expected, got, f"state {s}, action {a}")


def _items(table: Any, name: str, most: int) -> Iterator[tuple[int, Any]]:
    """Yield the numbers and the entries of a dict or a list, numbers below ``most``."""
    if not isinstance(table, (Mapping, list, tuple)):
        raise invalid(f"env.{name}", "a dict or a list", type(table).__name__)
    for number, entry in table.items() if isinstance(table, Mapping) else enumerate(table):
        if not (isinstance(number, (int, np.integer)) and 0 <= number < most):
            raise invalid(f"env.{name}", f"numbers in 0..{most - 1}", repr(number))
        yield int(number), entry


def _reached(
    initial: NDArray[np.float64], origin: NDArray[np.int64], following: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(S,) bool: states that moves (E,) lead to from the first states."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    first = np.flatnonzero(initial)
    states = initial.size
    whence = np.concatenate([origin, np.full(first.size, states)])
    whither = np.concatenate([following, first])
    graph = coo_array((np.ones(whence.size), (whence, whither)), shape=(states + 1, states + 1))
    met = breadth_first_order(graph.tocsr(), states, return_predecessors=False)
    reached = np.zeros(states + 1, bool)
    reached[met] = True
    return reached[:-1]
