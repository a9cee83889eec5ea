"""Followers that may wait for as long as they like before they are absorbed."""

import numpy as np

from fastincentive import IncentiveProblem, JointReward, Payments, TabularMDP


def waiting_room():
    """State 0: wait or go on to 1; 1 leads to the sink 2."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 2] = transition[2, :, 2] = 1.0
    return TabularMDP(transition, np.zeros(3), 0.9, 0)


def waiting_policies(*waits):
    policies = np.zeros((len(waits), 3, 2))
    policies[:, 1:, 0] = 1.0
    policies[:, 0, 0] = waits
    policies[:, 0, 1] = 1 - np.array(waits)
    return policies


def waiting_problem(table, **settings):
    mdp = waiting_room()
    n = np.ndim(table)
    payments = Payments.at_states([[0]] + [[]] * (n - 1))
    return IncentiveProblem([mdp] * n, JointReward(table), payments, **settings)
