"""Incentive design in Markov decision processes.

A leader promises each of n independent followers non-negative side payments; each follower solves
its own tabular MDP; the leader's reward depends on the joint state of all of them. Names are
loaded on first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastincentive import models, theory
    from fastincentive.certificate import Stationarity, stationarity
    from fastincentive.cheapest import CheapestPayments, cheapest_payments
    from fastincentive.costs import CustomCost, ExpectedSpend, LinearCost, QuadraticCost
    from fastincentive.errors import (
        ConvergenceWarning,
        ImproperPolicyError,
        InfeasiblePolicyError,
        InputError,
        MissingExtraError,
        NotConvergedError,
        ProductSpaceTooLargeError,
        TruncationWarning,
    )
    from fastincentive.followers import Followers
    from fastincentive.io import load_solution, save_solution
    from fastincentive.leader import JointReward, LabelReward, LeaderReward
    from fastincentive.leader_many import AdditiveReward, CountReward, SumReward
    from fastincentive.loop import solve
    from fastincentive.mdp import TabularMDP
    from fastincentive.methods import BilevelAscent
    from fastincentive.milp import SingleFollowerOptimum, single_follower_optimum
    from fastincentive.payments import Payments
    from fastincentive.policy import Direct, Softmax
    from fastincentive.problem import Evaluation, IncentiveProblem
    from fastincentive.response import (
        BestResponse,
        best_response,
        evaluate_policy,
        occupancy_measure,
        soft_best_response,
    )
    from fastincentive.solution import Ascent, History, Solution, Status
    from fastincentive.starts import best_response_policies, leader_optimal_policies

_WHERE = {
    "certificate": ["Stationarity", "stationarity"],
    "cheapest": ["CheapestPayments", "cheapest_payments"],
    "costs": ["CustomCost", "ExpectedSpend", "LinearCost", "QuadraticCost"],
    "errors": [
        "ConvergenceWarning",
        "ImproperPolicyError",
        "InfeasiblePolicyError",
        "InputError",
        "MissingExtraError",
        "NotConvergedError",
        "ProductSpaceTooLargeError",
        "TruncationWarning",
    ],
    "followers": ["Followers"],
    "io": ["load_solution", "save_solution"],
    "loop": ["solve"],
    "leader": ["JointReward", "LabelReward", "LeaderReward"],
    "leader_many": ["AdditiveReward", "CountReward", "SumReward"],
    "mdp": ["TabularMDP"],
    "methods": ["BilevelAscent"],
    "milp": ["SingleFollowerOptimum", "single_follower_optimum"],
    "payments": ["Payments"],
    "policy": ["Direct", "Softmax"],
    "problem": ["Evaluation", "IncentiveProblem"],
    "response": [
        "BestResponse",
        "best_response",
        "evaluate_policy",
        "occupancy_measure",
        "soft_best_response",
    ],
    "solution": ["Ascent", "History", "Solution", "Status"],
    "starts": ["best_response_policies", "leader_optimal_policies"],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "AdditiveReward",
    "Ascent",
    "BestResponse",
    "BilevelAscent",
    "CheapestPayments",
    "ConvergenceWarning",
    "CountReward",
    "CustomCost",
    "Direct",
    "Evaluation",
    "ExpectedSpend",
    "Followers",
    "History",
    "ImproperPolicyError",
    "IncentiveProblem",
    "InfeasiblePolicyError",
    "InputError",
    "JointReward",
    "LabelReward",
    "LeaderReward",
    "LinearCost",
    "MissingExtraError",
    "NotConvergedError",
    "Payments",
    "ProductSpaceTooLargeError",
    "QuadraticCost",
    "SingleFollowerOptimum",
    "Softmax",
    "Solution",
    "Stationarity",
    "Status",
    "SumReward",
    "TabularMDP",
    "TruncationWarning",
    "best_response",
    "best_response_policies",
    "cheapest_payments",
    "evaluate_policy",
    "leader_optimal_policies",
    "load_solution",
    "models",
    "occupancy_measure",
    "save_solution",
    "single_follower_optimum",
    "soft_best_response",
    "solve",
    "stationarity",
    "theory",
]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of the package, on first use."""
    if name in _MODULE_OF:
        value = getattr(import_module(f"fastincentive.{_MODULE_OF[name]}"), name)
    elif name in ("models", "theory"):
        value = import_module(f"fastincentive.{name}")
    else:
        raise AttributeError(f"module 'fastincentive' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
