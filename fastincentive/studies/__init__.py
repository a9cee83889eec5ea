"""Many solves: sweeps, Pareto fronts, audits of gradients, black boxes."""
