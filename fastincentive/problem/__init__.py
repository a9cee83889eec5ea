"""The incentive design problem: f, q and their gradients."""
