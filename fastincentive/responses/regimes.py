"""Regimes: how best responses change along a line of payments, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._machine import check_large
from fastincentive.errors import invalid
from fastincentive.followers.evaluation import evaluate_packed
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP, as_mdp
from fastincentive.followers.policies import net_rewards
from fastincentive.kernels import bellman, end_components, equal_actions
from fastincentive.kernels import regimes as kernels
from fastincentive.kernels.packed import TIE, Packed
from fastincentive.problem.memory import response_bytes

__all__ = ["LIST_REMEDY", "Regimes", "Responses", "alike", "follower_regimes", "repeat", "walk"]

#: Lists have room for so many responses on each line at first.
FIRST_ROOM = 32
LIST_REMEDY = (
    "Upper bounds on payments make lists shorter; methods that list nothing, such as "
    "BilevelAscent() with refine=False, serve more states."
)


class Responses(NamedTuple):
    """Best responses along lines, each with the stretch of its line on which it is optimal."""

    line: NDArray[np.int64]  # (C,)
    lower: FloatArray  # (C,)
    upper: FloatArray  # (C,)
    laws: NDArray[np.int64]  # (C, S) actions in visited states, -1 elsewhere
    actions: NDArray[np.int64]  # (C, S) the same with optimal actions elsewhere
    complete: NDArray[np.bool_]  # (m,) whether all combinations of tied actions are listed
    bounded: NDArray[np.bool_]  # (m,) False if payments further on could be earned for ever
    ends: FloatArray  # (m,) how far each line was followed
    breaks: NDArray[np.int64]  # (m,) breakpoints, those of states that are not visited included


def repeat(packed: Packed, which: NDArray[np.int64]) -> Packed:
    """Return packed followers in which follower j is the given follower ``which[j]``."""
    return packed._replace(
        model=packed.model[which],
        discount=packed.discount[which],
        initial=packed.initial[which],
    )


def alike(
    followers: Followers, index: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """First action (n, S, A) that is the same as each in law, reward, payment and label."""
    out = np.empty(followers.shape, np.int64)
    equal_actions.first_equals(followers.packed, followers.rewards, index, labels, out)
    return out


def walk(
    packed: Packed,
    base: FloatArray,
    direction: FloatArray,
    equals: NDArray[np.int64],
    upper: FloatArray,
) -> Responses:
    """List all best responses along the lines ``base + t direction`` (m, S, A), 0 <= t <= upper.

    ``packed`` holds one follower per line. Responses that differ only where they never come, or
    only by actions with the same ``equals`` (m, S, A), count as one.

    Raises
    ------
    InputError
        If at discount 1 payments could be earned for ever at the start of a line.
    """
    actions, values, status = _respond(packed, base)
    if status.min() < 0:
        raise invalid(
            "payments",
            "a bounded best total reward at the start of the line",
            "a loop that earns for ever",
            f"line {int(np.argmax(status < 0))}",
        )
    found = _walk(packed, (base, direction, upper), equals, actions, values)
    if not found.bounded.all():
        found = _with_ends(packed, base, direction, equals, found)
    return found


def _respond(
    packed: Packed, rewards: FloatArray
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
    """Best responses and values (m, S) at rewards (m, S, A), and a status < 0 where unbounded."""
    lines, states, _ = rewards.shape
    actions = np.full((lines, states), -1)
    values, q_values = np.empty((lines, states)), np.empty(rewards.shape)
    status = np.empty(lines, np.int64)
    bellman.best_responses(packed, rewards, actions, values, q_values, np.empty(lines), status)
    return actions, values, status


def _with_ends(
    packed: Packed,
    base: FloatArray,
    direction: FloatArray,
    equals: NDArray[np.int64],
    found: Responses,
) -> Responses:
    """Answer the points anew beyond which payments could be earned for ever.

    Exactly there a loop earns nothing, and a follower may stay in it: its value may jump.
    """
    which = np.flatnonzero(~found.bounded)
    last = np.array([found.upper[found.line == j].max() for j in which.tolist()])
    rewards = net_rewards(base[which], last[:, None, None] * direction[which])
    actions, values, status = _respond(repeat(packed, which), rewards)
    bounded = status >= 0
    which, last = which[bounded], last[bounded]
    rewards, actions, values = rewards[bounded], actions[bounded], values[bounded]
    if which.size == 0:
        return found
    point = (rewards, np.zeros(rewards.shape), np.zeros(which.size))
    ends = _walk(repeat(packed, which), point, equals[which], actions, values)
    at = np.full(found.bounded.size, np.nan)
    at[which] = last
    kept = found.lower != at[found.line]
    line = np.concatenate([found.line[kept], which[ends.line]])
    order = np.argsort(line, kind="stable")
    complete = found.complete.copy()
    complete[which] &= ends.complete
    there = last[ends.line]

    def joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([first[kept], second])[order]

    return found._replace(
        line=line[order],
        lower=joined(found.lower, there),
        upper=joined(found.upper, there),
        laws=joined(found.laws, ends.laws),
        actions=joined(found.actions, ends.actions),
        complete=complete,
    )


def _walk(
    packed: Packed,
    line: tuple[FloatArray, FloatArray, FloatArray],
    equals: NDArray[np.int64],
    actions: NDArray[np.int64],
    values: FloatArray,
) -> Responses:
    """As ``walk``, from best responses and values (m, S) at the start of the lines."""
    base, direction, upper = line
    lines, states, _ = base.shape
    idle = np.full((lines, states), -1)
    for i in np.flatnonzero(packed.discount == 1.0).tolist():
        end_components.mark_idle(packed, i, np.abs(base[i]) + np.abs(direction[i]), idle[i])
    along = kernels.Lines(base, direction, equals, idle, upper)
    written = (actions.copy(), values.copy(), np.empty(base.shape, np.bool_), np.empty(lines))
    found = np.zeros((lines, 6), np.int64)
    found[:, 3] = 1
    room, going = FIRST_ROOM, np.arange(lines)
    listed = _room(lines, room, base.shape[1:], lines)
    ended, parts = found.copy(), []
    while True:
        kernels.walk_lines.sized(max(along.base.size, listed.full.size))(
            packed, along, *written, TIE, listed, found
        )
        ended[going] = found
        held = (np.arange(room) < found[:, :1]) & (found[:, 5:] == 1)
        parts.append((going[np.nonzero(held)[0]], *(each[held] for each in listed[:4])))
        full = np.flatnonzero(found[:, 5] == 0)
        if full.size == 0:
            break
        # These lines go on with twice the room.
        going, found, packed = going[full], found[full], repeat(packed, full)
        along = kernels.Lines(*(each[full] for each in along))
        written = (written[0][full], written[1][full], written[2][full], written[3][full])
        more = _room(full.size, 2 * room, base.shape[1:], int(ended[:, 0].sum()))
        for new, old in zip(more[:4], listed[:4], strict=True):
            new[:, :room] = old[full]
        listed, room = more._replace(stop=listed.stop[full]), 2 * room
    which, first, last, laws, taken = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(which, kind="stable")
    furthest = np.zeros(lines)
    np.maximum.at(furthest, which, last)
    return Responses(
        line=which[order],
        lower=first[order],
        upper=last[order],
        laws=laws[order],
        actions=taken[order],
        complete=ended[:, 3] != 0,
        bounded=ended[:, 2] == 0,
        ends=np.where(ended[:, 4] != 0, furthest, upper),
        breaks=ended[:, 1],
    )


def _room(lines: int, room: int, shape: tuple[int, int], count: int) -> kernels.ResponseList:
    """Empty lists with room for so many responses on each line, if the machine has it.

    So many responses of followers of a shape (S, A) are listed already, or will be at least.
    """
    states, actions = shape
    check_large(
        f"A list of more than {count} best responses of {states} states",
        16.0 * lines * room * states + float(response_bytes(states, actions)) * count,
        LIST_REMEDY,
    )
    return kernels.ResponseList(
        np.empty((lines, room)),
        np.empty((lines, room)),
        np.empty((lines, room, states), np.int64),
        np.empty((lines, room, states), np.int64),
        np.zeros((lines, 2)),
    )


@dataclass(frozen=True)
class Regimes:
    """All best responses of one follower to reward R + t D, in the order in which they appear.

    Attributes
    ----------
    lower, upper : array (C,)
        Response k is optimal exactly for t in [lower[k], upper[k]]; a response that is optimal at
        a breakpoint only has lower = upper.
    policies : array (C, S, A)
        Deterministic. In states they do not visit they are optimal at ``lower``.
    values : array (C, S)
        V at t = lower[k].
    start_values, slopes : array (C,)
        The value from the initial distribution is start_values[k] + slopes[k] * (t - lower[k]);
        the slope is the occupancy-weighted direction (the paper's Lemma 1, unnormalised).
    occupancies : array (C, S, A)
        Unnormalised discounted visits.
    complete : bool
        Whether all combinations of tied actions are listed (many exact ties can be too many).
        Breakpoints at payments worth a million times all else are not resolved: the regimes then
        end at the first of them, short of the end of the line.
    bounded : bool
        False if, at discount 1, payments beyond the last breakpoint could be earned for ever.
    """

    lower: FloatArray
    upper: FloatArray
    policies: FloatArray
    values: FloatArray
    start_values: FloatArray
    slopes: FloatArray
    occupancies: FloatArray
    complete: bool
    bounded: bool

    @property
    def breakpoints(self) -> FloatArray:
        """Payments (K,) at which the response changes, the start of the line excluded."""
        return np.unique(self.lower[self.lower > 0.0])

    @checked
    def optimal(self, t: float) -> NDArray[np.int64]:
        """Numbers of the responses that are optimal at t: several where they tie."""
        return np.flatnonzero((self.lower <= t) & (t <= self.upper))

    @checked
    def value(self, t: float) -> float:
        """V*(t) from the initial distribution: the largest of the lines."""
        return float((self.start_values + self.slopes * (t - self.lower)).max())


@checked
def follower_regimes(mdp: TabularMDP, direction: ArrayLike, upper: float = np.inf) -> Regimes:
    """Find every best response of a follower whose reward is R + t D, for 0 <= t <= upper.

    Parametric policy iteration: for a fixed policy values are linear in t, so it stays optimal
    until an advantage A0 + t A1 vanishes; there the policy that is optimal next maximises the
    slope over all actions that tie. Exact up to rounding; nothing is sampled.

    Parameters
    ----------
    mdp : TabularMDP
    direction : array (S, A) or (S,), or int
        D, in units of reward per unit of payment; a number of a state means 1 there.
    upper : float
        End of the line; may be infinite, there are finitely many regimes.

    Returns
    -------
    Regimes

    Raises
    ------
    InputError
        If the direction has the wrong shape, pays for unavailable actions or, at discount 1, in
        absorbing states.
    MemoryLimitError
        If the regimes find no room.

    References
    ----------
    Puterman, Markov Decision Processes (1994), section 6.4 (policy iteration); the parametric
    form is that of the simplex method with a parametric objective (Gass and Saaty, 1955).
    """
    followers = Followers([as_mdp("mdp", mdp)])
    states, actions = mdp.n_states, mdp.n_actions
    line = np.asarray(direction)
    if line.ndim == 0 and np.issubdtype(line.dtype, np.integer):
        if not 0 <= int(line) < states:
            raise invalid("direction", f"a state number in 0..{states - 1}", int(line))
        line = np.arange(states) == int(line)
    line = np.array(line, float)
    if line.shape == (states,):
        line = np.repeat(line[:, None], actions, axis=1)
    if line.shape != (states, actions) or not np.isfinite(line).all():
        raise invalid(
            "direction",
            f"finite numbers of shape ({states}, {actions}) or ({states},), or a state number",
            line.shape,
        )
    if np.asarray(direction).ndim == 2 and line[~mdp.available].any():
        s, a = (int(k) for k in np.argwhere(~mdp.available & (line != 0.0))[0])
        raise invalid(
            "direction", "0 for unavailable actions", line[s, a], f"state {s}, action {a}"
        )
    line = np.where(mdp.available, line, 0.0)
    if mdp.discount == 1.0 and line[mdp.transition.absorbing].any():
        raise invalid("direction", "0 in absorbing states, because the discount is 1", "a payment")
    if not upper >= 0:
        raise invalid("upper", "a number >= 0", upper)
    _, kinds = np.unique(line, return_inverse=True)
    # Without a leader every action is a label of its own: only exact copies count as one.
    equals = alike(followers, kinds.reshape(1, states, actions), np.zeros((1, states, 1), int))
    found = walk(followers.packed, followers.rewards, line[None], equals, np.array([upper]))
    count = found.line.size
    check_large(f"{count} regimes of {states} states", 32.0 * count * line.size, LIST_REMEDY)
    policies = followers.deterministic_policies(found.actions)
    many = repeat(followers.packed, np.zeros(count, np.int64))
    rewards = followers.rewards + found.lower[:, None, None] * line
    values, _, visits, _ = evaluate_packed(followers.models, many, rewards, policies)
    occupancies = visits[:, :, None] * policies
    return Regimes(
        lower=found.lower,
        upper=found.upper,
        policies=policies,
        values=values,
        start_values=values @ mdp.initial,
        slopes=np.einsum("ksa,sa->k", occupancies, line),
        occupancies=occupancies,
        complete=bool(found.complete[0]),
        bounded=bool(found.bounded[0]),
    )
