"""Plain NumPy twins of the fast code: the oracle every kernel is tested against.

Obvious over fast: explicit Kronecker products, ``numpy.linalg.solve``, loops over joint states.
Nothing is imported from the package under test.

Conventions
-----------
- One follower is ``transition`` (S, A, S), ``reward`` (S, A), ``discount``, ``initial`` (S,) and
  ``policy`` (S, A); n followers are lists of these. Joint states are flattened in C order: the
  first follower varies slowest.
- ``available`` (S, A) says which actions exist, at least one in each state. A policy is 0 at the
  others; what ``transition`` and ``reward`` hold there must be finite and never matters to a value,
  only to the same entry of a Q table or of a gradient.
- An occupancy is unnormalised: ``sum_t discount**t Pr(s_t = s, a_t = a)``.
- ``absorbing`` (S,) is the union of the bottom classes (`bottom_classes`). It counts only at
  ``discount == 1``, where it is required: the follower is killed there, its value and occupancy
  are 0. The leader's process is killed where all followers are absorbed. At ``discount == 1`` a
  policy that never gets there from some state, visited or not, is a ValueError.
- Policy entries are free variables: derivatives are ambient, not along the simplex. A reward of
  states alone is the reward of every action there, so it enters as ``sum_a policy[s, a] * R(s)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

VALUE_TOLERANCE = 1e-13  # error of value iteration, relative to max(1, |V|), rounding apart
TIE_TOLERANCE = 1e-10  # actions closer than this are equally good, relative to max(1, |V|)


# One follower


def policy_transition(transition: Array, policy: Array) -> Array:
    """Return the chain (S, S) that `policy` (S, A) makes of `transition` (S, A, S)."""
    return np.einsum("sa,sat->st", policy, transition)


def policy_reward(reward: Array, policy: Array) -> Array:
    """Return the expected reward (S,) of one step of `policy` (S, A)."""
    return np.sum(policy * reward, axis=1)


def reachability(edges: Mask) -> Mask:
    """Return (S, S), True where a walk of zero or more `edges` (S, S) leads from row to column."""
    reach = edges | np.eye(len(edges), dtype=bool)
    while True:
        longer = reach.astype(float) @ reach.astype(float) > 0
        if np.array_equal(longer, reach):
            return reach
        reach = longer


def bottom_classes(transition: Array, available: Mask) -> Mask:
    """Return (S,), True where all that available actions can reach can reach the state back."""
    edges = np.any((transition > 0) & available[:, :, None], axis=1)
    reach = reachability(edges)
    return np.all(~reach | reach.T, axis=1)


def _alive_chain(chain: Array, discount: float, absorbed: Mask | None) -> tuple[Array, Mask]:
    """Return `chain` (K, K) with killed rows and columns at 0, and the other states (K,)."""
    alive = np.ones(len(chain), dtype=bool)
    if discount == 1.0:
        if absorbed is None:
            raise ValueError("discount 1 needs the absorbing states")
        alive = ~absorbed
        ends = reachability(chain > 0)[:, ~alive].any(axis=1)
        if not ends.all():
            raise ValueError(f"discount 1: state {np.argmin(ends)} is never absorbed")
    return chain * alive[:, None] * alive[None, :], alive


def _discounted_values(
    chain: Array, reward: Array, discount: float, absorbed: Mask | None
) -> Array:
    """Return v (K,) solving v = reward + discount * chain v, 0 where killed."""
    chain, alive = _alive_chain(chain, discount, absorbed)
    return np.linalg.solve(np.eye(len(chain)) - discount * chain, reward * alive)


def _discounted_visits(
    chain: Array, initial: Array, discount: float, absorbed: Mask | None
) -> Array:
    """Return d (K,) solving d = initial + discount * chain' d, 0 where killed."""
    chain, alive = _alive_chain(chain, discount, absorbed)
    return np.linalg.solve(np.eye(len(chain)) - discount * chain.T, initial * alive)


def evaluate_policy(
    transition: Array, reward: Array, discount: float, policy: Array, absorbing: Mask | None = None
) -> tuple[Array, Array]:
    """Return V (S,) and Q (S, A) of `policy` (S, A) by one linear solve, both 0 where killed."""
    chain = policy_transition(transition, policy)
    values = _discounted_values(chain, policy_reward(reward, policy), discount, absorbing)
    q_values = reward + discount * transition @ values
    if discount == 1.0 and absorbing is not None:
        q_values = np.where(absorbing[:, None], 0.0, q_values)
    return values, q_values


def occupancy_measure(
    transition: Array, discount: float, initial: Array, policy: Array, absorbing: Mask | None = None
) -> Array:
    """Return the unnormalised occupancy (S, A) of `policy` (S, A), 0 where killed."""
    visits = _discounted_visits(policy_transition(transition, policy), initial, discount, absorbing)
    return visits[:, None] * policy


def _last_change(discount: float) -> float:
    """Return the change at which to stop: the error is 1 / (1 - discount) times as large."""
    return max(VALUE_TOLERANCE * (1.0 - discount), 8 * np.finfo(float).eps)


def best_response(
    transition: Array, reward: Array, discount: float, available: Mask, iterations: int = 200_000
) -> tuple[Array, Array, Array]:
    """Return a best response (S, A), V* (S,), Q* (S, A) by value iteration from V = 0.

    The action of a state changes only when another is strictly better. At discount 1 this keeps
    the action that earned the value; a greedy one could wait for ever where waiting is free.
    """
    states = np.arange(len(reward))
    values = np.zeros(len(reward))
    choice = np.argmax(np.where(available, reward, -np.inf), axis=1)
    for _ in range(iterations):
        q_values = reward + discount * transition @ values
        masked = np.where(available, q_values, -np.inf)
        new_values = masked.max(axis=1)
        scale = max(1.0, np.abs(new_values).max())
        better = new_values > masked[states, choice] + TIE_TOLERANCE * scale
        choice = np.where(better, masked.argmax(axis=1), choice)
        change = np.abs(new_values - values).max()
        values = new_values
        if change <= _last_change(discount) * scale:
            policy = np.zeros_like(reward)
            policy[states, choice] = 1.0
            return policy, values, reward + discount * transition @ values
    raise RuntimeError(f"value iteration: change {change:.1e} after {iterations} iterations")


def soft_best_response(
    transition: Array,
    reward: Array,
    discount: float,
    available: Mask,
    tau: float,
    free: Mask | None = None,
    iterations: int = 200_000,
) -> tuple[Array, Array, Array]:
    """Return policy (S, A), V (S,), Q (S, A) with V = tau * logsumexp(Q / tau) where available.

    In the states `free` (S,) no entropy is earned: V = max Q, the policy uniform over the best
    actions.
    """
    free = np.zeros(len(reward), dtype=bool) if free is None else free
    values = np.zeros(len(reward))
    for _ in range(iterations):
        q_values = reward + discount * transition @ values
        masked = np.where(available, q_values, -np.inf)
        best = masked.max(axis=1)
        soft = best + tau * np.log(np.exp((masked - best[:, None]) / tau).sum(axis=1))
        new_values = np.where(free, best, soft)
        scale = max(1.0, np.abs(new_values).max())
        change = np.abs(new_values - values).max()
        values = new_values
        if change <= _last_change(discount) * scale:
            q_values = reward + discount * transition @ values
            masked = np.where(available, q_values, -np.inf)
            ties = masked >= masked.max(axis=1, keepdims=True) - TIE_TOLERANCE * scale
            uniform = ties / ties.sum(axis=1, keepdims=True)
            policy = np.where(free[:, None], uniform, softmax_policy(q_values, tau, available))
            return policy, values, q_values
    raise RuntimeError(f"value iteration: change {change:.1e} after {iterations} iterations")


# Softmax parameterization


def softmax_policy(theta: Array, tau: float, available: Mask) -> Array:
    """Return the policy (..., A) proportional to exp(theta / tau) where `available` (..., A)."""
    masked = np.where(available, theta, -np.inf)
    weights = np.exp((masked - masked.max(axis=-1, keepdims=True)) / tau)
    return weights / weights.sum(axis=-1, keepdims=True)


def softmax_jacobian_product(grad_pi: Array, policy: Array, tau: float) -> Array:
    """Return dV/dtheta (..., A) = pi / tau * (g - sum_a pi g), g = dV/dpi: eq. 16 corrected."""
    mean = np.sum(policy * grad_pi, axis=-1, keepdims=True)
    return policy / tau * (grad_pi - mean)


# The leader on the product space


def _kron_all(factors: Sequence[Array]) -> Array:
    """Return the Kronecker product of vectors or of matrices, the first factor slowest."""
    product = factors[0]
    for factor in factors[1:]:
        product = np.kron(product, factor)
    return product


def joint_transition(transitions: Sequence[Array], policies: Sequence[Array]) -> Array:
    """Return the joint chain (S^n, S^n) of n followers with policies (S, A)."""
    pairs = zip(transitions, policies, strict=True)
    return _kron_all([policy_transition(transition, policy) for transition, policy in pairs])


def joint_initial(initials: Sequence[Array]) -> Array:
    """Return the joint initial distribution (S^n,) of n distributions (S,)."""
    return _kron_all(initials)


def joint_absorbed(absorbing_sets: Sequence[Mask] | None) -> Mask | None:
    """Return (S^n,), True where all n followers are absorbed, from n masks (S,)."""
    if absorbing_sets is None:
        return None
    return _kron_all([np.asarray(mask, dtype=float) for mask in absorbing_sets]) > 0


def state_action_table(reward_table: Array, policies: Sequence[Array]) -> Array:
    """Return the leader's reward as (S, A) * n (axes s_1, a_1, s_2, ...) from that or (S,) * n."""
    n = len(policies)
    shape = tuple(size for policy in policies for size in policy.shape)
    if reward_table.ndim == n:
        reward_table = np.expand_dims(reward_table, tuple(range(1, 2 * n, 2)))
    elif reward_table.ndim != 2 * n:
        raise ValueError(f"reward_table needs {n} or {2 * n} axes, got {reward_table.ndim}")
    return np.broadcast_to(reward_table, shape)


def joint_reward(reward_table: Array, policies: Sequence[Array]) -> Array:
    """Return the leader's expected reward (S,) * n in each joint state, actions averaged out."""
    table = state_action_table(reward_table, policies)
    for i, policy in enumerate(policies):  # axis i is s_i, axis i + 1 is a_i: earlier ones are gone
        weights = policy.reshape((1,) * i + policy.shape + (1,) * (table.ndim - i - 2))
        table = np.sum(table * weights, axis=i + 1)
    return table


def _kron_joint_values(
    transitions: Sequence[Array],
    policies: Sequence[Array],
    reward_table: Array,
    discount: float,
    absorbing_sets: Sequence[Mask] | None,
) -> Array:
    """Return the leader's value (S^n,) of starting in each joint state."""
    chain = joint_transition(transitions, policies)
    reward = joint_reward(reward_table, policies).ravel()
    return _discounted_values(chain, reward, discount, joint_absorbed(absorbing_sets))


def kron_leader_value(
    transitions: Sequence[Array],
    initials: Sequence[Array],
    policies: Sequence[Array],
    reward_table: Array,
    discount: float,
    absorbing_sets: Sequence[Mask] | None = None,
) -> float:
    """Return the leader's value (eq. 1); `reward_table` is (S,) * n or (S, A) * n interleaved."""
    values = _kron_joint_values(transitions, policies, reward_table, discount, absorbing_sets)
    return float(joint_initial(initials) @ values)


def kron_joint_occupancy(
    transitions: Sequence[Array],
    initials: Sequence[Array],
    policies: Sequence[Array],
    discount: float,
    absorbing_sets: Sequence[Mask] | None = None,
) -> Array:
    """Return the unnormalised joint state occupancy (S,) * n, 0 where killed."""
    chain = joint_transition(transitions, policies)
    absorbed = joint_absorbed(absorbing_sets)
    visits = _discounted_visits(chain, joint_initial(initials), discount, absorbed)
    return visits.reshape([len(initial) for initial in initials])


def kron_leader_gradient(
    transitions: Sequence[Array],
    initials: Sequence[Array],
    policies: Sequence[Array],
    reward_table: Array,
    discount: float,
    absorbing_sets: Sequence[Mask] | None = None,
) -> Array:
    """Return the derivative (n, S, A) of the leader's value in each policy entry, left free.

    Entry (i, s, a) sums, over joint states with s_i = s and joint actions with a_i = a, the
    occupancy of the joint state times the probability of the others' actions times the joint Q.
    """
    n = len(policies)
    n_states, n_actions = policies[0].shape
    table = state_action_table(reward_table, policies)
    occupancy = kron_joint_occupancy(transitions, initials, policies, discount, absorbing_sets)
    values = _kron_joint_values(transitions, policies, reward_table, discount, absorbing_sets)
    gradient = np.zeros((n, n_states, n_actions))
    for s in itertools.product(range(n_states), repeat=n):
        for a in itertools.product(range(n_actions), repeat=n):
            next_states = _kron_all([transitions[i][s[i], a[i]] for i in range(n)])
            index = tuple(itertools.chain.from_iterable(zip(s, a, strict=True)))
            joint_q = table[index] + discount * next_states @ values
            for i in range(n):
                others = 1.0
                for j in range(n):
                    if j != i:
                        others *= policies[j][s[j], a[j]]
                gradient[i, s[i], a[i]] += occupancy[s] * others * joint_q
    return gradient


def pair_leader_gradient(
    transitions: Sequence[Array],
    initials: Sequence[Array],
    policies: Sequence[Array],
    reward_table: Array,
    discount: float,
    absorbing_sets: Sequence[Mask] | None = None,
) -> tuple[float, Array]:
    """Value and gradient (2,S,A) for two followers and a reward on states: as the kron functions.

    The same Kronecker solves, with the sums over the other follower's states as matrix products.
    """
    states = len(initials[0])
    chain = joint_transition(transitions, policies)
    killed = joint_absorbed(absorbing_sets) if discount == 1.0 else None
    alive = np.ones(len(chain)) if killed is None else 1.0 - killed
    system = np.eye(len(chain)) - discount * chain * alive[:, None] * alive[None, :]
    values = np.linalg.solve(system, reward_table.reshape(-1) * alive).reshape(states, states)
    visits = np.linalg.solve(system.T, joint_initial(initials) * alive).reshape(states, states)
    chains = [policy_transition(*pair) for pair in zip(transitions, policies, strict=True)]
    ahead = [values @ chains[1].T, values.T @ chains[0].T]
    seen, earned = [visits, visits.T], [reward_table, reward_table.T]
    gradient = np.stack(
        [
            (seen[i] * earned[i]).sum(axis=1)[:, None]
            + discount
            * np.einsum("sap,pt,st->sa", transitions[i], ahead[i], seen[i], optimize=True)
            for i in range(2)
        ]
    )
    return float(initials[0] @ values @ initials[1]), gradient


def stein_visitation(P1: Array, P2: Array, mu1: Array, mu2: Array, discount: float) -> Array:
    """Return W (S, S) solving W = mu1 mu2' + discount * P1' W P2 for chains P1, P2 (S, S)."""
    source = np.outer(mu1, mu2)
    operator = np.eye(source.size) - discount * np.kron(P1.T, P2.T)  # on W flattened row by row
    return np.linalg.solve(operator, source.ravel()).reshape(source.shape)


def _draw(rng: np.random.Generator, probabilities: Array) -> int:
    """Return one index drawn from `probabilities` (K,)."""
    cumulative = np.cumsum(probabilities)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def simulate_leader_value(
    rng: np.random.Generator,
    transitions: Sequence[Array],
    initials: Sequence[Array],
    policies: Sequence[Array],
    reward_table: Array,
    discount: float,
    episodes: int,
    horizon: int,
) -> tuple[float, float]:
    """Return mean and standard error of the leader's return over `episodes` of `horizon` steps."""
    n = len(policies)
    table = state_action_table(reward_table, policies)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        s = [_draw(rng, initials[i]) for i in range(n)]
        for t in range(horizon):
            a = [_draw(rng, policies[i][s[i]]) for i in range(n)]
            index = tuple(itertools.chain.from_iterable(zip(s, a, strict=True)))
            returns[episode] += discount**t * table[index]
            s = [_draw(rng, transitions[i][s[i], a[i]]) for i in range(n)]
    return float(returns.mean()), float(returns.std(ddof=1) / np.sqrt(episodes))


# Derivatives and projections


def finite_difference(
    function: Callable[[Array], float], array: Array, mask: Mask | None = None, step: float = 1e-6
) -> Array:
    """Return central differences of a scalar `function` in `array`'s entries, 0 outside `mask`."""
    array = np.array(array, dtype=float)
    mask = np.ones(array.shape, dtype=bool) if mask is None else mask
    gradient = np.zeros(array.shape)
    for index in zip(*np.nonzero(mask), strict=True):
        up, down = array.copy(), array.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (up[index] - down[index])
    return gradient


def project_simplex(vector: Array, available: Mask) -> Array:
    """Return the projection of `vector` (A,) on the simplex over `available` (A,), by sorting."""
    descending = np.sort(vector[available])[::-1]
    counts = np.arange(1, len(descending) + 1)
    shifts = (np.cumsum(descending) - 1.0) / counts  # to subtract if only the `count` largest stay
    shift = shifts[np.nonzero(descending > shifts)[0][-1]]
    return np.where(available, np.maximum(vector - shift, 0.0), 0.0)


def project_simplex_tangent(direction: Array, point: Array, available: Mask) -> Array:
    """Return the projection of `direction` (A,) on the tangent cone of the simplex at `point` (A,).

    The cone is {d : sum d = 0, d >= 0 where point <= 0, d = 0 where not available}. Every choice
    of the entries held at 0 is tried; the nearest feasible candidate is the projection.
    """
    bounded = np.nonzero(available & (point <= 0))[0]
    best, best_distance = np.zeros(len(direction)), np.inf
    for held in itertools.product([False, True], repeat=len(bounded)):
        moving = available.copy()
        moving[bounded[np.array(held, dtype=bool)]] = False
        candidate = np.zeros(len(direction))
        if moving.any():
            candidate[moving] = direction[moving] - direction[moving].mean()
        distance = np.sum((candidate - direction)[available] ** 2)
        if np.all(candidate[bounded] >= 0) and distance < best_distance:
            best, best_distance = candidate, distance
    return best


def project_box(v: Array, lower: float | Array, upper: float | Array) -> Array:
    """Return the Euclidean projection of `v` (k,) on {lower <= v <= upper}."""
    return np.minimum(np.maximum(v, lower), upper)


def project_budget(
    v: Array, lower: float | Array, upper: float | Array, prices: Array, budget: float
) -> Array:
    """Return the Euclidean projection of `v` (k,) on {lower <= v <= upper, prices . v <= budget}.

    It is the box projection of v - m * prices for the least m >= 0 that meets the budget, found by
    bisection to the last bit. ValueError if no point of the box meets it.
    """

    def at(multiplier: float) -> Array:
        return project_box(v - multiplier * prices, lower, upper)

    if prices @ at(0.0) <= budget:
        return at(0.0)
    low, high = 0.0, 1.0
    while prices @ at(high) > budget:
        low, high = high, 2.0 * high
        if high > 1e15:
            raise ValueError(f"no point of the box meets the budget {budget}")
    for _ in range(200):
        middle = 0.5 * (low + high)
        if prices @ at(middle) > budget:
            low = middle
        else:
            high = middle
    return at(high)


def project_rows(rows: Array, available: Mask) -> Array:
    """Project every row of `rows` (..., A) on the simplex over its available entries."""
    descending = -np.sort(-np.where(available, rows, -np.inf), axis=-1)
    counts = np.arange(1, rows.shape[-1] + 1)
    shifts = (np.cumsum(np.where(np.isfinite(descending), descending, 0.0), axis=-1) - 1.0) / counts
    last = np.sum(descending > shifts, axis=-1, keepdims=True) - 1
    shift = np.take_along_axis(shifts, last, axis=-1)
    return np.where(available, np.maximum(rows - shift, 0.0), 0.0)


def smallest_root(function: Callable[[float], float]) -> float:
    """Return the smallest m >= 0 with function(m) >= 0, for a non-decreasing function."""
    low, high = 0.0, 1.0
    if function(0.0) >= 0.0:
        return 0.0
    while function(high) < 0.0:
        low, high = high, 2.0 * high
        if high > 1e9:
            return 1e9
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if function(middle) < 0.0:
            low = middle
        else:
            high = middle
    return high


def ascent_iteration(
    transitions: Sequence[Array],
    rewards: Sequence[Array],
    discounts: Sequence[float],
    initials: Sequence[Array],
    available: Sequence[Mask],
    absorbing: Sequence[Mask],
    leader_table: Array,
    leader_discount: float,
    cost_weight: float,
    index: Array,
    payments: Array,
    policies: Sequence[Array],
    pieces: Sequence[list[tuple[float, Array]]],
    multipliers: Sequence[Array],
    units: Array,
    step: float,
    payment_step: float,
    closing: float,
    sweeps: int,
) -> tuple[Array, list[Array], float, Array]:
    """One iteration of Algorithm 1 for two followers: direct policies, projected steps.

    `index` (n,S,A) numbers the payment of each pair (-1: none), no payment shared; `pieces` are
    earlier lines (c, D) of each V_i*, to which the current best response is added, and
    `multipliers` their values so far; `closing` is the share of a gap to close. Returns the new
    payments and policies, the leader's value and the gaps, all by explicit matrices on the product
    space.
    """
    n = len(transitions)
    side = np.where(index >= 0, np.append(payments, 0.0)[index], 0.0)
    everyone = [reward + extra for reward, extra in zip(rewards, side, strict=True)]
    value, gradient = pair_leader_gradient(
        transitions, initials, policies, leader_table, leader_discount, absorbing
    )
    total = np.full(len(payments), -cost_weight)
    new_policies, changes, gaps = [], np.zeros(len(payments)), np.zeros(n)
    for i in range(n):
        model = (transitions[i], everyone[i], discounts[i])
        values, q_values = evaluate_policy(*model, policies[i], absorbing[i])
        occupancy = occupancy_measure(
            transitions[i], discounts[i], initials[i], policies[i], absorbing[i]
        )
        best, best_values, _ = best_response(*model, available[i])
        best_occupancy = occupancy_measure(
            transitions[i], discounts[i], initials[i], best, absorbing[i]
        )
        visits = occupancy.sum(axis=1, keepdims=True)
        mine = np.flatnonzero([(index[i] == k).any() for k in range(len(payments))])
        slope = np.array([occupancy[index[i] == k].sum() for k in mine])
        best_slope = np.array([best_occupancy[index[i] == k].sum() for k in mine])
        worth, best_worth = initials[i] @ values, initials[i] @ best_values
        gaps[i] = best_worth - worth
        lines = [*pieces[i], (best_worth - best_slope @ payments[mine], best_slope)]
        advantage = np.where(available[i], q_values - values[:, None], 0.0)
        ahead = gradient[i] / (np.maximum(visits, 1e-6) * units[i])
        pull = advantage / units[i]
        pace = payment_step / step * units[i]

        def row_change(
            multiplier: float,
            i: int = i,
            ahead: Array = ahead,
            pull: Array = pull,
        ) -> Array:
            moved = policies[i] + step * (ahead + multiplier * pull)
            return (project_rows(moved, available[i]) - policies[i]) / step

        def payment_change(push: Array, mine: Array = mine, pace: float = pace) -> Array:
            moved = np.maximum(payments[mine] + step * pace * (total[mine] + push), 0.0)
            return (moved - payments[mine]) / step

        chosen = np.append(multipliers[i], 0.0)
        differences = [slope - line[1] for line in lines]
        targets = [
            -closing / step * (worth - line[0] - line[1] @ payments[mine]) - 1e-11 * units[i]
            for line in lines
        ]
        for _ in range(sweeps):
            for j, (difference, target) in enumerate(zip(differences, targets, strict=True)):

                def lacking(
                    multiplier: float,
                    j: int = j,
                    difference: Array = difference,
                    target: float = target,
                    chosen: Array = chosen,
                    differences: list[Array] = differences,
                    slopes: Array = visits * advantage,
                ) -> float:
                    trial = chosen.copy()
                    trial[j] = multiplier
                    push = sum(m * d for m, d in zip(trial, differences, strict=True))
                    moved = np.sum(slopes * row_change(trial.sum()))
                    return float(moved + difference @ payment_change(push) - target)

                chosen[j] = smallest_root(lacking)
        change = row_change(chosen.sum())
        push = sum(m * d for m, d in zip(chosen, differences, strict=True))
        moved = payment_change(push)
        seen = visits[:, 0] > 1e-6
        largest = max(step * np.abs(change[seen]).max(), 0.2)
        far = max(step * np.abs(moved).max(initial=0.0), 0.2 * units[i])
        damping = min(0.2 / largest, 0.2 * units[i] / far)
        rows = policies[i] + step * np.where(seen, damping, 1.0)[:, None] * change
        rows = rows + np.where(seen[:, None], 0.0, step * pull)
        new_policies.append(project_rows(rows, available[i]))
        changes[mine] = step * damping * moved
    return np.maximum(payments + changes, 0.0), new_policies, value, gaps
