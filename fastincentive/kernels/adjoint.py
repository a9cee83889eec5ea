"""The adjoint of smooth responses: from derivatives in policies to those in action values.

A response is pi = softmax(Q / tau), Q = r + gamma P V. A derivative in Q is one in r, and through V
one in the rewards of all successors, which one transposed solve with I - gamma P^mu collects; mu
are the policies for which dV/dr = (I - gamma P^mu)^-1 holds (the implicit function theorem). Bytes:
12 for each stored transition with a derivative that is not 0, 24 for each entry (S, A).
"""

from __future__ import annotations

import numba

from fastincentive.kernels.jit import parallel_jit

__all__ = ["softmax_adjoint"]


@parallel_jit
def softmax_adjoint(packed, slopes, policies, tau, ended, scores, sources):
    """Write derivatives in Q (n,S,A), ``scores``, and through Q in V (n,S), ``sources``.

    ``slopes`` (n,S,A) are derivatives in the policies, of which available entries are read; in
    states marked in ``ended`` (n,S) the response is no softmax and does not move.
    """
    n, states, actions = slopes.shape
    for i in numba.prange(n):
        m = packed.model[i]
        gamma = packed.discount[i]
        for s in range(states):
            sources[i, s] = 0.0
        for s in range(states):
            mean = 0.0
            for a in range(actions):
                scores[i, s, a] = 0.0
                if policies[i, s, a] > 0.0:
                    mean += policies[i, s, a] * slopes[i, s, a]
            if ended[i, s]:
                continue
            for a in range(actions):
                if policies[i, s, a] > 0.0:
                    scores[i, s, a] = policies[i, s, a] * (slopes[i, s, a] - mean) / tau
            if gamma == 1.0 and packed.absorbing[m, s]:
                continue
            row = (m * states + s) * actions
            for a in range(actions):
                passed = gamma * scores[i, s, a]
                if passed != 0.0:
                    for e in range(packed.row_start[row + a], packed.row_start[row + a + 1]):
                        sources[i, packed.successor[e]] += passed * packed.probability[e]
