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
    from fastincentive.errors import (
        ConvergenceWarning,
        ImproperPolicyError,
        InputError,
        MissingExtraError,
        NotConvergedError,
        ProductSpaceTooLargeError,
        TruncationWarning,
    )
    from fastincentive.followers import Followers
    from fastincentive.io import load_solution, save_solution
    from fastincentive.leader import JointReward, LabelReward, LeaderReward
    from fastincentive.loop import solve
    from fastincentive.mdp import TabularMDP
    from fastincentive.methods import BilevelAscent
    from fastincentive.payments import LinearCost, Payments
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
    "errors": [
        "ConvergenceWarning",
        "ImproperPolicyError",
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
    "mdp": ["TabularMDP"],
    "methods": ["BilevelAscent"],
    "payments": ["LinearCost", "Payments"],
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
    "Ascent",
    "BestResponse",
    "BilevelAscent",
    "ConvergenceWarning",
    "Direct",
    "Evaluation",
    "Followers",
    "History",
    "ImproperPolicyError",
    "IncentiveProblem",
    "InputError",
    "JointReward",
    "LabelReward",
    "LeaderReward",
    "LinearCost",
    "MissingExtraError",
    "NotConvergedError",
    "Payments",
    "ProductSpaceTooLargeError",
    "Softmax",
    "Solution",
    "Stationarity",
    "Status",
    "TabularMDP",
    "TruncationWarning",
    "best_response",
    "best_response_policies",
    "evaluate_policy",
    "leader_optimal_policies",
    "load_solution",
    "models",
    "occupancy_measure",
    "save_solution",
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
