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
    from fastincentive import engines, models, theory
    from fastincentive.audit import GradientAudit, audit_gradients
    from fastincentive.black_box import ModelUncertainty, model_uncertainty, solve_estimated
    from fastincentive.bounds import upper_bound
    from fastincentive.certificate import Stationarity, stationarity
    from fastincentive.cheapest import CheapestPayments, cheapest_payments
    from fastincentive.costs import CustomCost, ExpectedSpend, LinearCost, QuadraticCost
    from fastincentive.errors import (
        ConvergenceWarning,
        ImproperPolicyError,
        InfeasiblePolicyError,
        InputError,
        MemoryLimitError,
        MissingExtraError,
        NotConvergedError,
        ProductSpaceTooLargeError,
        TruncationWarning,
    )
    from fastincentive.estimators import Exact, FollowerEstimate, GradientEstimate, Reinforce
    from fastincentive.followers import Followers
    from fastincentive.io import load_solution, save_solution
    from fastincentive.large import ResponseMemory
    from fastincentive.leader import JointReward, LabelReward, LeaderReward
    from fastincentive.leader_congestion import CongestionReward
    from fastincentive.leader_counts import CountReward
    from fastincentive.leader_many import AdditiveReward, SumReward
    from fastincentive.leader_pairwise import PairwiseReward
    from fastincentive.leader_product import ProductReward
    from fastincentive.loop import solve
    from fastincentive.mdp import TabularMDP
    from fastincentive.memory import MemoryEstimate
    from fastincentive.methods import (
        BilevelAscent,
        HyperGradient,
        RegimeAscent,
        ValuePenalty,
        ZerothOrder,
    )
    from fastincentive.milp import SingleFollowerOptimum, single_follower_optimum
    from fastincentive.objectives import StrongStackelberg, WeakStackelberg
    from fastincentive.optimum import GlobalOptimum, global_optimum
    from fastincentive.payments import Payments
    from fastincentive.policy import Direct, Softmax
    from fastincentive.problem import Evaluation, IncentiveProblem
    from fastincentive.regimes import Regimes, follower_regimes
    from fastincentive.response import (
        BestResponse,
        best_response,
        evaluate_policy,
        occupancy_measure,
        soft_best_response,
    )
    from fastincentive.responses import (
        FollowerResponses,
        TotalDerivative,
        follower_responses,
        hypergradient,
    )
    from fastincentive.robust import (
        PaymentRanges,
        StackelbergValues,
        payment_ranges,
        stackelberg_values,
    )
    from fastincentive.simulators import EstimatedMDP, estimate_mdp, mdp_from_gymnasium
    from fastincentive.solution import Ascent, History, Refinement, Solution, Status
    from fastincentive.starts import best_response_policies, leader_optimal_policies
    from fastincentive.sweeping import Sweep, SweepItem, sweep
    from fastincentive.tradeoff import ParetoFront, pareto
    from fastincentive.worst_case import WorstCase, worst_near_response

_WHERE = {
    "audit": ["GradientAudit", "audit_gradients"],
    "black_box": ["ModelUncertainty", "model_uncertainty", "solve_estimated"],
    "bounds": ["upper_bound"],
    "certificate": ["Stationarity", "stationarity"],
    "cheapest": ["CheapestPayments", "cheapest_payments"],
    "costs": ["CustomCost", "ExpectedSpend", "LinearCost", "QuadraticCost"],
    "errors": [
        "ConvergenceWarning",
        "ImproperPolicyError",
        "InfeasiblePolicyError",
        "InputError",
        "MemoryLimitError",
        "MissingExtraError",
        "NotConvergedError",
        "ProductSpaceTooLargeError",
        "TruncationWarning",
    ],
    "estimators": ["Exact", "FollowerEstimate", "GradientEstimate", "Reinforce"],
    "followers": ["Followers"],
    "large": ["ResponseMemory"],
    "io": ["load_solution", "save_solution"],
    "loop": ["solve"],
    "leader": ["JointReward", "LabelReward", "LeaderReward"],
    "leader_congestion": ["CongestionReward"],
    "leader_counts": ["CountReward"],
    "leader_many": ["AdditiveReward", "SumReward"],
    "leader_pairwise": ["PairwiseReward"],
    "leader_product": ["ProductReward"],
    "mdp": ["TabularMDP"],
    "memory": ["MemoryEstimate"],
    "methods": [
        "BilevelAscent",
        "HyperGradient",
        "RegimeAscent",
        "ValuePenalty",
        "ZerothOrder",
    ],
    "milp": ["SingleFollowerOptimum", "single_follower_optimum"],
    "objectives": ["StrongStackelberg", "WeakStackelberg"],
    "optimum": ["GlobalOptimum", "global_optimum"],
    "payments": ["Payments"],
    "policy": ["Direct", "Softmax"],
    "problem": ["Evaluation", "IncentiveProblem"],
    "regimes": ["Regimes", "follower_regimes"],
    "response": [
        "BestResponse",
        "best_response",
        "evaluate_policy",
        "occupancy_measure",
        "soft_best_response",
    ],
    "responses": [
        "FollowerResponses",
        "TotalDerivative",
        "follower_responses",
        "hypergradient",
    ],
    "robust": [
        "PaymentRanges",
        "StackelbergValues",
        "payment_ranges",
        "stackelberg_values",
    ],
    "simulators": ["EstimatedMDP", "estimate_mdp", "mdp_from_gymnasium"],
    "solution": ["Ascent", "History", "Refinement", "Solution", "Status"],
    "starts": ["best_response_policies", "leader_optimal_policies"],
    "sweeping": ["Sweep", "SweepItem", "sweep"],
    "tradeoff": ["ParetoFront", "pareto"],
    "worst_case": ["WorstCase", "worst_near_response"],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "AdditiveReward",
    "Ascent",
    "BestResponse",
    "BilevelAscent",
    "CheapestPayments",
    "CongestionReward",
    "ConvergenceWarning",
    "CountReward",
    "CustomCost",
    "Direct",
    "EstimatedMDP",
    "Evaluation",
    "Exact",
    "ExpectedSpend",
    "FollowerEstimate",
    "FollowerResponses",
    "Followers",
    "GlobalOptimum",
    "GradientAudit",
    "GradientEstimate",
    "History",
    "HyperGradient",
    "ImproperPolicyError",
    "IncentiveProblem",
    "InfeasiblePolicyError",
    "InputError",
    "JointReward",
    "LabelReward",
    "LeaderReward",
    "LinearCost",
    "MemoryEstimate",
    "MemoryLimitError",
    "MissingExtraError",
    "ModelUncertainty",
    "NotConvergedError",
    "PairwiseReward",
    "ParetoFront",
    "PaymentRanges",
    "Payments",
    "ProductReward",
    "ProductSpaceTooLargeError",
    "QuadraticCost",
    "Refinement",
    "RegimeAscent",
    "Regimes",
    "Reinforce",
    "ResponseMemory",
    "SingleFollowerOptimum",
    "Softmax",
    "Solution",
    "StackelbergValues",
    "Stationarity",
    "Status",
    "StrongStackelberg",
    "SumReward",
    "Sweep",
    "SweepItem",
    "TabularMDP",
    "TotalDerivative",
    "TruncationWarning",
    "ValuePenalty",
    "WeakStackelberg",
    "WorstCase",
    "ZerothOrder",
    "audit_gradients",
    "best_response",
    "best_response_policies",
    "cheapest_payments",
    "engines",
    "estimate_mdp",
    "evaluate_policy",
    "follower_regimes",
    "follower_responses",
    "global_optimum",
    "hypergradient",
    "leader_optimal_policies",
    "load_solution",
    "mdp_from_gymnasium",
    "model_uncertainty",
    "models",
    "occupancy_measure",
    "pareto",
    "payment_ranges",
    "save_solution",
    "single_follower_optimum",
    "soft_best_response",
    "solve",
    "solve_estimated",
    "stackelberg_values",
    "stationarity",
    "sweep",
    "theory",
    "upper_bound",
    "worst_near_response",
]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of the package, on first use."""
    if name in _MODULE_OF:
        value = getattr(import_module(f"fastincentive.{_MODULE_OF[name]}"), name)
    elif name in ("engines", "models", "theory"):
        value = import_module(f"fastincentive.{name}")
    else:
        raise AttributeError(f"module 'fastincentive' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
