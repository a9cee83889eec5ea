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
    from fastincentive.certificates.bounds import upper_bound
    from fastincentive.certificates.milp import SingleFollowerOptimum, single_follower_optimum
    from fastincentive.certificates.optimum import GlobalOptimum, global_optimum
    from fastincentive.certificates.robustness import (
        PaymentRanges,
        StackelbergValues,
        payment_ranges,
        stackelberg_values,
    )
    from fastincentive.certificates.stationarity import Stationarity, stationarity
    from fastincentive.certificates.worst_case import WorstCase, worst_near_response
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
    from fastincentive.followers.best_responses import ResponseMemory
    from fastincentive.followers.followers import Followers
    from fastincentive.followers.mdp import TabularMDP
    from fastincentive.followers.parameterization import Direct, Softmax
    from fastincentive.followers.simulators import EstimatedMDP, estimate_mdp, mdp_from_gymnasium
    from fastincentive.followers.single import (
        BestResponse,
        best_response,
        evaluate_policy,
        occupancy_measure,
        soft_best_response,
    )
    from fastincentive.io import load_solution, save_solution
    from fastincentive.leader.additive import AdditiveReward
    from fastincentive.leader.base import LeaderReward, SumReward
    from fastincentive.leader.congestion import CongestionReward
    from fastincentive.leader.counts import CountReward
    from fastincentive.leader.pairwise import PairwiseReward
    from fastincentive.leader.product import ProductReward
    from fastincentive.leader.tables import JointReward, LabelReward
    from fastincentive.methods import (
        BilevelAscent,
        HyperGradient,
        RegimeAscent,
        ValuePenalty,
        ZerothOrder,
    )
    from fastincentive.methods._starts import best_response_policies, leader_optimal_policies
    from fastincentive.problem.costs import CustomCost, ExpectedSpend, LinearCost, QuadraticCost
    from fastincentive.problem.evaluation import Evaluation
    from fastincentive.problem.memory import MemoryEstimate
    from fastincentive.problem.payments import Payments
    from fastincentive.problem.problem import IncentiveProblem
    from fastincentive.problem.sampled_gradients import (
        Exact,
        FollowerEstimate,
        GradientEstimate,
        Reinforce,
    )
    from fastincentive.responses.cheapest import CheapestPayments, cheapest_payments
    from fastincentive.responses.regimes import Regimes, follower_regimes
    from fastincentive.responses.smooth import (
        FollowerResponses,
        TotalDerivative,
        follower_responses,
        hypergradient,
    )
    from fastincentive.solution import Ascent, History, Refinement, Solution, Status
    from fastincentive.solver.loop import solve
    from fastincentive.solver.objectives import StrongStackelberg, WeakStackelberg
    from fastincentive.studies.audit import GradientAudit, audit_gradients
    from fastincentive.studies.black_box import ModelUncertainty, model_uncertainty, solve_estimated
    from fastincentive.studies.pareto_front import ParetoFront, pareto
    from fastincentive.studies.sweep_items import Sweep, SweepItem
    from fastincentive.studies.sweeps import sweep

_WHERE = {
    "certificates.bounds": ["upper_bound"],
    "certificates.milp": ["SingleFollowerOptimum", "single_follower_optimum"],
    "certificates.optimum": ["GlobalOptimum", "global_optimum"],
    "certificates.robustness": [
        "PaymentRanges",
        "StackelbergValues",
        "payment_ranges",
        "stackelberg_values",
    ],
    "certificates.stationarity": ["Stationarity", "stationarity"],
    "certificates.worst_case": ["WorstCase", "worst_near_response"],
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
    "followers.best_responses": ["ResponseMemory"],
    "followers.followers": ["Followers"],
    "followers.mdp": ["TabularMDP"],
    "followers.parameterization": ["Direct", "Softmax"],
    "followers.simulators": ["EstimatedMDP", "estimate_mdp", "mdp_from_gymnasium"],
    "followers.single": [
        "BestResponse",
        "best_response",
        "evaluate_policy",
        "occupancy_measure",
        "soft_best_response",
    ],
    "io": ["load_solution", "save_solution"],
    "leader.additive": ["AdditiveReward"],
    "leader.base": ["LeaderReward", "SumReward"],
    "leader.congestion": ["CongestionReward"],
    "leader.counts": ["CountReward"],
    "leader.pairwise": ["PairwiseReward"],
    "leader.product": ["ProductReward"],
    "leader.tables": ["JointReward", "LabelReward"],
    "methods": ["BilevelAscent", "HyperGradient", "RegimeAscent", "ValuePenalty", "ZerothOrder"],
    "methods._starts": ["best_response_policies", "leader_optimal_policies"],
    "problem.costs": ["CustomCost", "ExpectedSpend", "LinearCost", "QuadraticCost"],
    "problem.evaluation": ["Evaluation"],
    "problem.memory": ["MemoryEstimate"],
    "problem.payments": ["Payments"],
    "problem.problem": ["IncentiveProblem"],
    "problem.sampled_gradients": ["Exact", "FollowerEstimate", "GradientEstimate", "Reinforce"],
    "responses.cheapest": ["CheapestPayments", "cheapest_payments"],
    "responses.regimes": ["Regimes", "follower_regimes"],
    "responses.smooth": [
        "FollowerResponses",
        "TotalDerivative",
        "follower_responses",
        "hypergradient",
    ],
    "solution": ["Ascent", "History", "Refinement", "Solution", "Status"],
    "solver.loop": ["solve"],
    "solver.objectives": ["StrongStackelberg", "WeakStackelberg"],
    "studies.audit": ["GradientAudit", "audit_gradients"],
    "studies.black_box": ["ModelUncertainty", "model_uncertainty", "solve_estimated"],
    "studies.pareto_front": ["ParetoFront", "pareto"],
    "studies.sweep_items": ["Sweep", "SweepItem"],
    "studies.sweeps": ["sweep"],
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
