"""Problem generators: the paper's models, gridworlds and random problems."""

from __future__ import annotations

from collections.abc import Callable

from fastincentive.models.crowd import city_map, crowd
from fastincentive.models.demand import demand_response
from fastincentive.models.example1 import example1, example1_objective
from fastincentive.models.grid import EXAMPLE_MAP, gridworld
from fastincentive.models.maps import Grid, grid_mdp
from fastincentive.models.paper import PAPER_MAP, paper_gridworld, paper_initial_policies
from fastincentive.models.random import random_problem
from fastincentive.problem.problem import IncentiveProblem

__all__ = [
    "EXAMPLE_MAP",
    "MODELS",
    "PAPER_MAP",
    "Grid",
    "city_map",
    "crowd",
    "demand_response",
    "example1",
    "example1_objective",
    "grid_mdp",
    "gridworld",
    "paper_gridworld",
    "paper_initial_policies",
    "random_problem",
]

#: Models by name. Each works without arguments and takes ``cost_weight``; the random ones, those
#: with an ``rng`` parameter, take a seed.
MODELS: dict[str, Callable[..., IncentiveProblem]] = {
    "paper-gridworld": paper_gridworld,
    "example1": example1,
    "gridworld": gridworld,
    "random": random_problem,
    "crowd": crowd,
    "demand-response": demand_response,
}
