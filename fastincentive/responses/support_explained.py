"""Why policies cannot be supported."""

from __future__ import annotations

import numpy as np

from fastincentive.responses.support_programme import SupportProgramme
from fastincentive.responses.support_task import BoolArray, SupportTask

__all__ = ["explain"]

#: Rows that the error for an infeasible policy lists.
LISTED = 5


def explain(task: SupportTask, supported: BoolArray) -> str:
    """Say which followers and states cannot be bought, by how much, and what would help."""
    payments = task.payments
    near = payments.lower.copy()
    lacking: list[tuple[float, int, int, int]] = []
    for group in task.payments.groups:
        if len(lacking) < LISTED and not supported[group].all():
            programme = SupportProgramme(task, group)
            near[programme.variables], rows = programme.shortfalls()
            lacking += rows
    if not lacking:
        names = ", ".join(map(str, np.flatnonzero(~supported)[:LISTED]))
        return f"policies: none of the allowed payments were found to support follower {names}"
    text = [_describe(task, *row) for row in lacking[:LISTED]]
    if len(lacking) > LISTED:
        text.append(f"and {len(lacking) - LISTED} more")
    _, i, s, _ = lacking[0]
    remedies = [f"allow a payment for follower {i} in state {s} or on the way that it should take"]
    if (near >= payments.upper).any():
        remedies.append("raise upper")
    if task.bonus.any():
        remedies.append("ask for a smaller margin")
    return (
        "policies: no allowed payments make these best responses; at the payments that come "
        f"nearest {'; '.join(text)}. To mend it, {', or '.join(remedies)}."
    )


def _describe(task: SupportTask, short: float, i: int, s: int, a: int) -> str:
    """Return one row of the explanation: action ``a`` is too good by ``short``."""
    wanted = np.where(np.arange(task.policies.shape[2]) == a, -1.0, task.policies[i, s])
    lead = task.bonus[i, s, a]
    text = f"follower {i}: state {s} action {int(np.argmax(wanted))} stays "
    if lead > 0:
        return text + f"{short:.6g} short of a lead of {lead:g} over action {a}"
    return text + f"worse than action {a} by {short:.6g}"
