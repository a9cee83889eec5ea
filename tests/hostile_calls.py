"""Calls of all public functions and methods with good arguments, for tests that spoil some.

``calls`` makes them; each takes milliseconds once kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

import fastincentive as fi
from fastincentive import engines, models, theory


class Call(NamedTuple):
    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


class Chain:
    """A simulator of three states in a row."""

    n_states, n_actions = 3, 2

    def reset(self, rng):
        self._rng, self._state = rng, 0
        return 0

    def step(self, action):
        self._state += bool(action and self._rng.random() < 0.8)
        return self._state, 1.0, self._state == 2


class Table:
    """What ``mdp_from_gymnasium`` reads of an environment."""

    def __init__(self):
        self.P = {
            s: {a: [(0.5, s, 0.0, False), (0.5, min(s + a, 2), 1.0, s + a >= 2)] for a in range(2)}
            for s in range(3)
        }
        self.initial_state_distrib = np.array([1.0, 0.0, 0.0])


def calls(folder) -> list[Call]:
    """Return all calls; files go to ``folder``."""
    made: list[Call] = []

    def add(name, function, /, **arguments):
        made.append(Call(name, function, arguments))

    problem = models.random_problem(2, 4, 2, 2, 0, n_payments=1, unavailable=0.2)
    bounded = models.random_problem(2, 4, 2, 2, 1, n_payments=1)
    bounded = fi.IncentiveProblem(
        bounded.followers,
        fi.AdditiveReward([0.0, 1.0, 0.0, 2.0]),
        fi.Payments.at_states([[0], [1]], upper=2.0),
        0.9,
    )
    alone = fi.IncentiveProblem(
        [problem.followers[0]], fi.JointReward([0.0, 1.0, 2.0, 0.0]), fi.Payments.everywhere(), 0.9
    )
    followers, mdp = problem.followers, problem.followers[0]
    payments = np.full(problem.payments.size, 0.5)
    policies = fi.best_response_policies(problem, payments)
    even = _even(followers)
    rewards = problem.rewards(payments)
    _models(add, mdp, followers, rewards, even)
    _leaders(add)
    _problems(add, problem, payments, policies, even, rewards)
    _methods(add, problem, bounded, even)
    _answers(add, problem, bounded, alone, payments, policies, even)
    _studies(add, problem, payments, policies, even)
    _generators(add, problem)
    _files(add, bounded, folder)
    return made


def _models(add, mdp, followers, rewards, even):
    transition, available = mdp.dense_transition(), mdp.available.copy()
    given = {"reward": mdp.reward.copy(), "discount": 0.9, "initial": 1, "available": available}
    add("TabularMDP", fi.TabularMDP, transition=transition, **given)
    successors = np.argsort(-transition, axis=2)[:, :, :2].copy()
    chances = np.take_along_axis(transition, successors, axis=2)
    add(
        "TabularMDP.from_successors",
        fi.TabularMDP.from_successors,
        successors=successors,
        probabilities=chances / chances.sum(axis=2, keepdims=True).clip(1e-9),
        **given,
    )
    initial = mdp.initial.copy()
    add("TabularMDP.replace", mdp.replace, reward=mdp.reward[:, 0], discount=0.5, initial=initial)
    add("TabularMDP.dense_transition", mdp.dense_transition)
    policy = even[0].copy()
    add("best_response", fi.best_response, mdp=mdp, tolerance=0.0)
    add("soft_best_response", fi.soft_best_response, mdp=mdp, temperature=0.5)
    evaluated = {"mdp": mdp, "policy": policy}
    add("evaluate_policy", fi.evaluate_policy, **evaluated, route="auto", tolerance=0.0)
    add("occupancy_measure", fi.occupancy_measure, **evaluated, normalized=True)
    add("Followers", fi.Followers, mdps=list(followers), counts=[2, 3])
    add(
        "Followers.best_responses",
        followers.best_responses,
        rewards=rewards,
        warm=np.zeros(rewards.shape[:2], int),
        memory=None,
        tolerance=0.0,
    )
    add("Followers.evaluate", followers.evaluate, rewards=rewards, policies=even, route="auto")
    sources = np.ones(rewards.shape[:2])
    best = followers.best_responses(rewards)
    add("Followers.sensible", followers.sensible, best=best)
    add("Followers.units", followers.units, best=best)
    paid = np.abs(rewards)
    add("Followers.optimal_actions", followers.optimal_actions, own=rewards, paid=paid,
        best=best)  # fmt: skip
    add("Followers.is_bounded", followers.is_bounded, rewards=rewards)
    patient = fi.Followers([models.grid_mdp("S.G", discount=1.0)])
    moving = np.abs(patient.rewards)
    right = patient.deterministic_policies(patient.best_responses(patient.rewards).actions)
    at = {"rewards": patient.rewards, "policies": right}
    add("Followers.evaluate patient", patient.evaluate, **at)
    warm = np.zeros(moving.shape[:2], int)
    add("Followers.best_responses patient", patient.best_responses, rewards=moving, warm=warm)
    add("Followers.is_proper patient", patient.is_proper, **at)
    add("Followers.is_bounded patient", patient.is_bounded, rewards=moving)
    add("Followers.idle", patient.idle, moving=moving)
    add("Followers.resting", patient.resting, moving=moving, policies=right)
    add("Followers.reached", followers.reached, allowed=followers.available)
    add(
        "Followers.from_arrays",
        fi.Followers.from_arrays,
        models=list(followers),
        rewards=rewards,
        discount=[0.9, 0.8],
        initial=[0, 1],
        index=[0, 1],
        counts=[1, 2],
    )
    add("Followers.occupancy_from", followers.occupancy_from, sources=sources, policies=even)
    add("Followers.check_policies", followers.check_policies, policies=even)
    add("Followers.is_proper", followers.is_proper, policies=even)
    actions = np.zeros(rewards.shape[:2], int)
    add("Followers.deterministic_policies", followers.deterministic_policies, actions=actions)
    add("Followers.reachable", followers.reachable, i=1)
    add("Followers.start_values", followers.start_values, values=sources)
    add("Followers.response_memory", followers.response_memory, most_gib=1.0)
    for form in (fi.Direct(), fi.Softmax()):
        name = type(form).__name__
        for method in ("policies", "project"):
            add(f"{name}.{method}", getattr(form, method), theta=even, followers=followers)
        add(f"{name}.parameters", form.parameters, policies=even, followers=followers)
        add(f"{name}.gradient", form.gradient, gradient=rewards, policies=even)
        stepped = {"policies": even, "slope": rewards, "step": 0.1, "followers": followers}
        add(f"{name}.step", form.step, **stepped)
    add("Softmax.from_logits", fi.Softmax().from_logits, logits=even, available=followers.available)
    add("Softmax", fi.Softmax, temperature=0.1, floor=1e-6)


def _leaders(add):
    n, states, actions = 3, 4, 2
    labels = np.array([0, 1, 1, 0])
    table = np.arange(8.0).reshape(2, 2, 2)
    own = np.arange(12.0).reshape(3, 4)
    edges = [[0, 1], [1, 2]]
    congested = np.arange(n + 1.0)[:, None] * [0.0, 1.0]
    given = {
        "AdditiveReward": {"rewards": own},
        "CountReward": {"labels": labels, "values": [0.0, 1.0, 2.0, 3.0]},
        "CongestionReward": {"resources": labels, "values": congested.T[:, : n + 1].copy()},
        "JointReward": {"table": np.arange(64.0).reshape(4, 4, 4)},
        "LabelReward": {"labels": labels, "table": table},
        "MaxReward": {"labels": labels, "values": [0.0, 1.0], "smallest": False},
        "PairwiseReward": {"edges": edges, "tables": np.eye(2), "labels": labels},
        "ProductReward": {"factors": own[:2], "weights": [1.0, 2.0]},
    }
    marginals = np.full((5, n, 2), 0.5)
    for name, arguments in given.items():
        kind = getattr(fi, name)
        add(name, kind, **arguments)
        reward = kind(**arguments)
        add(f"{name}.bind", reward.bind, n=n, n_states=states, n_actions=actions)
        add(f"{name}.scaled", reward.scaled, weight=2.0)
        add(f"{name}.__mul__", reward.__mul__, weight=2.0)
        if name not in ("JointReward", "LabelReward"):
            counts = np.array([1, 2])
            typed = dict(arguments)
            if name in ("AdditiveReward", "CountReward", "CongestionReward", "MaxReward"):
                if name == "AdditiveReward":
                    typed["rewards"] = own[:2]
                reward_of_types = kind(**typed)
                given_types = {"counts": counts, "n_states": states, "n_actions": actions}
                add(f"{name}.bind_types", reward_of_types.bind_types, **given_types)
        bound = reward.bind(n, states, actions)
        _bound(add, f"{name} bound", bound, np.full((5, n, bound.n_labels), 1.0 / bound.n_labels))
    typed = {"counts": np.array([1, 2]), "n_states": states, "n_actions": actions}
    product = fi.ProductReward(own[:2])
    add("ProductReward.bind_types", product.bind_types, **typed)
    one, other = fi.AdditiveReward(own), fi.CountReward(labels, np.arange(4.0))
    both = one + other
    add("SumReward.bind", both.bind, n=n, n_states=states, n_actions=actions)
    add("SumReward.scaled", both.scaled, weight=2.0)
    add("SumReward", fi.SumReward, parts=[one, other])
    _bound(add, "SumReward bound", (one + other).bind(n, states, actions), None)
    add("LeaderReward.__add__", one.__add__, other=other)
    add(
        "CongestionReward.polynomial",
        fi.CongestionReward.polynomial,
        resources=labels,
        coefficients=[[0.0, 0.0], [1.0, 0.5]],
    )
    del marginals


def _bound(add, name, bound, marginals):
    if marginals is None:
        marginals = np.full((5, len(bound.labels), bound.n_labels), 1.0 / bound.n_labels)
    for method in ("expectations", "expected", "conditional"):
        add(f"{name}.{method}", getattr(bound, method), marginals=marginals)
    add(f"{name}.pair", bound.pair, marginals=marginals, i=0, j=1)
    add(f"{name}.turns", lambda marginals: list(bound.turns(marginals)), marginals=marginals)
    possible = np.ones(marginals.shape[1:], bool)
    add(f"{name}.magnitude", bound.magnitude, possible=possible)
    labels = np.zeros((2, len(bound.labels)), int)
    add(f"{name}.sampled", bound.sampled, labels=labels)
    add(f"{name}.at_labels", bound.at_labels, labels=labels)
    candidates = [marginals[:, i][None].copy() for i in range(marginals.shape[1])]
    add(f"{name}.relaxed", bound.relaxed, candidates=candidates, weights=np.ones(5))
    add(f"{name}.scratch_bytes", bound.scratch_bytes, horizon=10)
    add(
        f"{name}.majorant",
        bound.majorant,
        sign=1.0,
        possible=possible,
        lasting=~possible,
        reference=marginals[0].copy(),
    )


def _problems(add, problem, payments, policies, even, rewards):
    leader = fi.AdditiveReward(np.arange(4.0))
    add(
        "IncentiveProblem",
        fi.IncentiveProblem,
        followers=list(problem.followers),
        leader=leader,
        payments=fi.Payments.everywhere(),
        leader_discount=0.9,
        cost_weight=0.1,
        cost=fi.LinearCost(),
        tail_tolerance=1e-12,
        max_horizon=2000,
    )
    add("IncentiveProblem.replace", problem.replace, cost_weight=0.2, budget=2.0)
    for name in ("leader_value", "leader_gradient"):
        add(f"IncentiveProblem.{name}", getattr(problem, name), policies=even)
    joint = {"policies": even, "max_gib": 1.0}
    add("IncentiveProblem.joint_occupancy", problem.joint_occupancy, **joint, method="auto")
    add("IncentiveProblem.joint_values", problem.joint_values, **joint)
    at = {"payments": payments, "policies": even}
    for name in ("cost_at", "cost_gradient", "expected_spend", "within_budget", "evaluate"):
        add(f"IncentiveProblem.{name}", getattr(problem, name), **at)
    add("IncentiveProblem.memory_estimate", problem.memory_estimate, policies=even, engine=None)
    add("IncentiveProblem.rewards", problem.rewards, payments=payments)
    add("IncentiveProblem.leader_pass", problem.leader_pass, policies=even, gradient=True)
    add("IncentiveProblem.cost_pass", problem.cost_pass, **at, gradient=True)
    add("IncentiveProblem.forward", problem.forward, policies=even, limit=5, discount=0.5)
    add("IncentiveProblem.net", problem.net, leader_value=1.0, cost=2.0)
    add("IncentiveProblem.net_objective", problem.net_objective, leader_value=1.0, cost=2.0)
    add("IncentiveProblem.affords", problem.affords, cost=2.0, slack=1e-9)
    add("IncentiveProblem.fingerprint", problem.fingerprint)
    add("MemoryEstimate.raise_if_too_large", problem.memory_estimate().raise_if_too_large,
        available=1e12)  # fmt: skip
    bound = problem.payments
    for name in ("project", "check", "check_bounds", "side_payments", "budget_use", "budget_slope",
                 "spread"):  # fmt: skip
        add(f"payments.{name}", getattr(bound, name), payments=payments)
    for name in ("pull_back", "pull_back_each"):
        add(f"payments.{name}", getattr(bound, name), gradient=rewards)
    add("payments.compress", bound.compress, occupancy=even)
    for name in ("most", "least"):
        add(f"payments.{name}", getattr(bound, name), values=np.ones(2))
    add("payments.describe", bound.describe, k=1)
    add("payments.reaching", bound.reaching, followers=np.array([0, 1]))
    tied = np.full(problem.followers.shape, -1)
    tied[:, 0, 0] = 0
    limits = {"upper": 3.0, "budget": 2.0}
    add("Payments.at_states", fi.Payments.at_states, states=[[0], [1, 2]], **limits)
    add("Payments.at_pairs", fi.Payments.at_pairs, mask=tied >= 0, **limits)
    add("Payments.everywhere", fi.Payments.everywhere, **limits)
    add("Payments.from_index", fi.Payments.from_index, index=tied, **limits)
    everywhere = fi.Payments.everywhere(upper=3.0)
    add("Payments.bind", everywhere.bind, followers=problem.followers, cost=fi.LinearCost())
    index = problem.payments.index
    add("Payments", fi.Payments, build=lambda _: index, upper=1.0, budget=None)
    add("LinearCost", fi.LinearCost, prices=[1.0, 2.0])
    add("QuadraticCost", fi.QuadraticCost, prices=[1.0, 2.0], curvature=[1.0, 0.0])
    add("ExpectedSpend", fi.ExpectedSpend, prices=[1.0, 2.0])
    add("CustomCost", fi.CustomCost, value=np.sum, gradient=np.ones_like)
    for cost in (
        fi.LinearCost(),
        fi.QuadraticCost([1.0, 2.0]),
        fi.CustomCost(np.sum, np.ones_like),
    ):
        name = type(cost).__name__
        add(f"{name}.value", cost.value, payments=payments)
        add(f"{name}.gradient", cost.gradient, payments=payments)


def _methods(add, problem, bounded, even):
    add(
        "BilevelAscent",
        fi.BilevelAscent,
        geometry="tangent",
        multiplier="joint",
        barrier="gap",
        response="soft",
        temperature=0.1,
        inner_steps=3,
        step=0.1,
        payment_step=0.1,
        schedule="sqrt",
        natural_gradient=True,
        eta=1.0,
        pieces=2,
        gradient=fi.Exact(),
        tolerance=1e-3,
        max_iter=5,
    )
    climb = {"response": "soft", "temperature": 0.1, "continuation": (0.5,), "tolerance": 1e-3}
    add("HyperGradient", fi.HyperGradient, **climb, max_iter=5)
    ascent = {"starts": 1, "pairs": 1, "directions": 1, "rounds": 2, "repriced": 1, "rng": 0}
    add("RegimeAscent", fi.RegimeAscent, **ascent)
    add("ValuePenalty", fi.ValuePenalty, weight=1.0, growth=2.0, round_length=5, step=0.1,
        payment_step=0.1, tolerance=1e-3, max_iter=5)  # fmt: skip
    add("ZerothOrder", fi.ZerothOrder, evaluations=20, pairs=2, radius=1.0, last_radius=1e-2,
        step=1.0, tolerance=0.1, rng=0)  # fmt: skip
    sampled = {"trajectories": 8, "horizon": 5, "baseline": "time", "reward_to_go": True}
    add("Reinforce", fi.Reinforce, **sampled, followers="estimated", exploration=0.1, rng=3)
    estimator = fi.Reinforce(8, 5)
    at = {"problem": problem, "policies": even}
    add("Reinforce.estimate", estimator.estimate, **at, parameterization=fi.Softmax(),
        rewards=problem.followers.rewards, iteration=1)  # fmt: skip
    add("Reinforce.sampled_policies", estimator.sampled_policies, **at)
    add("WeakStackelberg", fi.WeakStackelberg, margin=1e-6)
    quick = fi.BilevelAscent(max_iter=3)
    add(
        "solve",
        fi.solve,
        problem=problem,
        method=quick,
        parameterization=fi.Direct(),
        initial_payments=np.ones(problem.payments.size),
        initial_policies=even,
        tie_breaking=None,
        rng=None,
        polish=True,
        refine=False,
        certify=False,
        engine=None,
        callback=None,
        progress=False,
        checkpoint=None,
        checkpoint_every=10,
    )
    start = np.ones(bounded.payments.size)
    for method in (fi.HyperGradient(max_iter=3), fi.RegimeAscent(1, 1, 1, 1, 1),
                   fi.ValuePenalty(max_iter=3), fi.ZerothOrder(20)):  # fmt: skip
        given = {"problem": bounded, "method": method, "initial_payments": start, "refine": False}
        add(f"solve {type(method).__name__}", fi.solve, **given)
    methods = (quick, fi.ValuePenalty(max_iter=3), fi.HyperGradient(max_iter=3),
               fi.RegimeAscent(1, 1, 1, 1, 1), fi.ZerothOrder(20))  # fmt: skip
    for method in methods:
        name = type(method).__name__
        begun = {"problem": problem, "parameterization": fi.Direct(), "payments": np.ones(2)}
        add(f"{name}.init", method.init, **begun, policies=even)
        add(f"{name}.check_shards", method.check_shards, count=1)
        add(f"{name}.check_suits", method.check_suits, problem=problem)
        state = method.init(problem, fi.Direct(), np.ones(2), even)
        given = {"problem": problem, "parameterization": fi.Direct()}

        def step(problem, parameterization, method=method, state=state):
            method.step_from(problem, parameterization, deepcopy(state))

        add(f"{name}.step_from", step, **given)
    add("engines.Local", engines.Local, shards=2)
    add("engines.Local solve", lambda **given: fi.solve(problem, quick, **given),
        engine=engines.Local(2), refine=False)  # fmt: skip
    add("best_response_policies", fi.best_response_policies, problem=problem, payments=np.ones(2))
    add("leader_optimal_policies", fi.leader_optimal_policies, problem=problem, rounds=2)


def _answers(add, problem, bounded, alone, payments, policies, even):
    at = {"problem": problem, "payments": payments}
    add("upper_bound", fi.upper_bound, problem=problem, mixed=False)
    add("global_optimum", fi.global_optimum, problem=bounded, time_limit=5.0, mixing=2,
        most_responses=50)  # fmt: skip
    add("single_follower_optimum", fi.single_follower_optimum, problem=alone, time_limit=5.0,
        max_visits=10.0)  # fmt: skip
    add("stackelberg_values", fi.stackelberg_values, **at)
    add("payment_ranges", fi.payment_ranges, **at, policies=policies)
    add("worst_near_response", fi.worst_near_response, **at, epsilon=[0.1, 0.0])
    add("stationarity", fi.stationarity, **at, policies=even, parameterization=fi.Direct(),
        geometry="tangent", multiplier="joint")  # fmt: skip
    responses = {"response": "soft", "temperature": 0.1}
    add("follower_responses", fi.follower_responses, **at, **responses)
    add("hypergradient", fi.hypergradient, **at, **responses)
    add("cheapest_payments", fi.cheapest_payments, problem=alone, margin=0.01,
        policies=fi.best_response_policies(alone, 0.0))  # fmt: skip
    mdp = problem.followers[0]
    direction = np.where(mdp.available, 1.0, 0.0)
    direction[1:] = 0.0
    add("follower_regimes", fi.follower_regimes, mdp=mdp, direction=direction, upper=5.0)
    regimes = fi.follower_regimes(mdp, direction, 5.0)
    add("Regimes.optimal", regimes.optimal, t=1.0)
    add("Regimes.value", regimes.value, t=1.0)


def _studies(add, problem, payments, policies, even):
    quick = fi.RegimeAscent(1, 1, 1, 1, 1)
    add("pareto", fi.pareto, problem=problem, weights=[0.1, 1.0], method=quick, start=payments,
        progress=False)  # fmt: skip
    add("pareto budgets", fi.pareto, problem=problem, budgets=[0.5, 1.0], method=quick)
    settings = [{"cost_weight": 0.1}, {"cost_weight": 0.2}]
    del settings
    ascent = fi.BilevelAscent(max_iter=2)
    add("sweep", fi.sweep, problems=[problem, problem], settings=[{"initial_payments": 1.0}, {}],
        threads_per_item=1, progress=False, refine=False, method=ascent)  # fmt: skip
    sampled = {"trajectories": 16, "rng": 0}
    add("audit_gradients", fi.audit_gradients, problem=problem, policies=even, **sampled)
    audit = fi.audit_gradients(problem, even, **sampled)
    name = next(iter(audit.estimates))
    for method in ("bias", "variance", "within"):
        add(f"GradientAudit.{method}", getattr(audit, method), name=name)
    add("estimate_mdp", fi.estimate_mdp, simulator=Chain(), samples=50, discount=0.9,
        max_steps=10, rng=0)  # fmt: skip
    estimated = fi.estimate_mdp(Chain(), 200, 0.9)
    add("EstimatedMDP.resample", estimated.resample, rng=np.random.default_rng(0))
    add("mdp_from_gymnasium", fi.mdp_from_gymnasium, env=Table(), discount=0.9)
    leader = fi.AdditiveReward([0.0, 1.0, 0.0, 0.0])
    guessed = fi.IncentiveProblem(
        [estimated.mdp] * 2, leader, fi.Payments.at_states([[0], [1]]), 0.9
    )
    drawn = {"problem": guessed, "estimates": [estimated, None], "draws": 3, "rng": 0}
    answer = fi.best_response_policies(guessed, 0.0)
    add("model_uncertainty", fi.model_uncertainty, **drawn, payments=0.0, policies=answer)
    add("solve_estimated", fi.solve_estimated, **drawn, margins=[0.01], method=ascent)


def _even(followers):
    """Uniform policies."""
    return followers.available / followers.available.sum(axis=2, keepdims=True)


def _generators(add, problem):
    add("models.random_problem", models.random_problem, n=2, n_states=4, n_actions=2, branching=2,
        rng=0, discounts=(0.5, 0.9), leader_discount=0.9, action_dependent=False,
        unavailable=0.1, n_payments=1, cost_weight=0.1)  # fmt: skip
    add("models.crowd", models.crowd, n=4, rng=0, size=5, slip=0.1, discount=0.9, types=None,
        capacity=2.0, cost_weight=0.1)  # fmt: skip
    add("models.demand_response", models.demand_response, n=3, slots=6, rng=0, work=2,
        shared=True, cost_weight=0.5)  # fmt: skip
    add("models.example1", models.example1, cost_weight=1.0)
    add("models.example1_objective", models.example1_objective, x=[0.5, 0.5],
        parameterization="direct", temperature=0.1, cost_weight=1.0)  # fmt: skip
    layout = "S.G\n.F.\n..L"
    add("models.grid_mdp", models.grid_mdp, layout=layout, slip=0.1, start=(0, 0), discount=0.9,
        rewards={"G": 5.0})  # fmt: skip
    add("models.gridworld", models.gridworld, layout=layout, slip=[0.1, 0.2], discount=0.9,
        starts=[(0, 0), (0, 1)], paid=[[(2, 2)], [(2, 2)]], rewards={"G": 5.0}, leader=None,
        leader_discount=0.9, cost_weight=0.1, upper=5.0, budget=3.0)  # fmt: skip
    add("models.paper_gridworld", models.paper_gridworld, slips=(0.1, 0.05), discount=0.95,
        cost_weight=0.1, start=(2, 0), upper=3.0)  # fmt: skip
    paper = models.paper_gridworld()
    add("models.paper_initial_policies", models.paper_initial_policies, problem=paper, promise=20.0)
    add("models.city_map", models.city_map, size=7)
    two = {"n": 2, "n_actions": 3, "parameterization": "softmax", "temperature": 0.5}
    add("theory.policy_constants", theory.policy_constants, **two, source="derived")
    add("theory.leader_smoothness", theory.leader_smoothness, discount=0.9, **two,
        reward_bound=1.0, source="paper")  # fmt: skip
    add("theory.smoothness_direct", theory.smoothness_direct, discount=0.9, n_actions=3,
        reward_bound=1.0)  # fmt: skip
    add("theory.smoothness_softmax", theory.smoothness_softmax, discount=0.9, temperature=0.5,
        reward_bound=1.0)  # fmt: skip
    add("theory.pl_constant", theory.pl_constant, problem=problem, payments=0.5,
        policies=_even(problem.followers),
        parameterization=fi.Direct(), source="derived")  # fmt: skip
    add("theory.step_bound", theory.step_bound, problem=problem, parameterization=fi.Direct(),
        payment_bound=5.0, cost_smoothness=0.0)  # fmt: skip


def _files(add, bounded, folder):
    solution = fi.solve(bounded, fi.RegimeAscent(1, 1, 1, 1, 1), initial_payments=0.5)
    path = folder / "solution.npz"
    fi.save_solution(path, solution)
    add("save_solution", fi.save_solution, path=folder / "other.npz", solution=solution)
    add("load_solution", fi.load_solution, path=path)
    add("Solution.raise_if_failed", solution.raise_if_failed)
