"""Collective operations between shards: what a step over all followers asks, wherever they are.

What needs all followers is written as a generator, named ``..._steps`` after the plain function
that it serves (``leader_pass_steps`` for ``leader_pass``). It holds some of the followers, and
yields a query whenever it needs to know something about all of them: whether some policy is
improper, when the sum over time may stop, what a label is worth given everybody's marginals.
``run_single`` answers a generator that holds all followers itself, and so makes the plain function
of it; an engine answers several, one for each shard, and they go on in lockstep. Queries hold label
marginals or a few numbers, never policies: nothing that grows with the states.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.kernels import marginals as kernels
from fastincentive.leader.base import BoundReward

__all__ = [
    "Across",
    "AnyOf",
    "Broadcast",
    "Conditional",
    "Context",
    "Earliest",
    "Expected",
    "Magnitude",
    "Project",
    "Query",
    "SequentialReduce",
    "SlopeOfCost",
    "Summary",
    "run_single",
]

Result = TypeVar("Result")


class Payments(Protocol):
    """What is asked of all payments together."""

    @property
    def size(self) -> int:
        """Number of payment variables."""
        ...

    def project(self, payments: FloatArray) -> FloatArray:
        """Project on the bounds and the budget."""
        ...


class Cost(Protocol):
    """What is asked of a cost that depends on the payments alone."""

    def value(self, payments: FloatArray) -> float:
        """C at payments (k,)."""
        ...

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx (k,)."""
        ...


class Context(Protocol):
    """What the answers know: an IncentiveProblem, or as much of it as the queries need."""

    @property
    def leader(self) -> BoundReward:
        """The leader's reward."""
        ...


class PaymentsContext(Context, Protocol):
    """What answers about payments know."""

    @property
    def payments(self) -> Payments:
        """All payments."""
        ...

    @property
    def cost(self) -> Cost:
        """Their cost; none that depends on the policies."""
        ...


class Query(Protocol):
    """What one shard asks; all shards ask the same at the same time."""

    @staticmethod
    def answers(asked: Sequence[Any], context: Any) -> list[Any]:
        """Return the answer for each shard."""
        ...


class AnyOf(NamedTuple):
    """Whether something is so in some shard."""

    flag: bool

    @staticmethod
    def answers(asked: Sequence[AnyOf], context: Context) -> list[bool]:
        """Return the answer for each shard."""
        return [any(each.flag for each in asked)] * len(asked)


class Broadcast(NamedTuple):
    """A number that all shards know but for rounding, as the first one knows it."""

    number: float

    @staticmethod
    def answers(asked: Sequence[Broadcast], context: Context) -> list[float]:
        """Return the answer for each shard."""
        return [asked[0].number] * len(asked)


class Summary(NamedTuple):
    """The largest of numbers of each shard, sums of others, and the cost C of all followers.

    Sums go over all payments and all followers in their order: no digit tells where the shards are
    cut. A payment that several shards have is 0 in ``by_payment`` of all but one.
    """

    largest: FloatArray
    by_payment: FloatArray  # (m, k)
    by_follower: FloatArray  # (m, n)
    variables: NDArray[np.int64]  # (k,) which payments the shard has
    payments: FloatArray  # (k,)
    spent: FloatArray | None  # (n,) where C is what followers are paid, else None

    @staticmethod
    def answers(
        asked: Sequence[Summary], context: PaymentsContext
    ) -> list[tuple[FloatArray, FloatArray, float]]:
        """Return the largest numbers, the sums (m,) and C for each shard."""
        largest = np.max([each.largest for each in asked], axis=0)
        total = Sums.answers(asked, context)[0]
        if asked[0].spent is None:
            cost = context.cost.value(_gathered(asked, context))
        else:
            cost = float(_joined([each.spent for each in asked], axis=0).sum())
        return [(largest, total, cost)] * len(asked)


class Sums(NamedTuple):
    """Sums over all payments and all followers, as in ``Summary``."""

    by_payment: FloatArray  # (m, k)
    by_follower: FloatArray  # (m, n)
    variables: NDArray[np.int64]  # (k,) which payments the shard has

    @staticmethod
    def answers(asked: Sequence[Sums | Summary], context: PaymentsContext) -> list[FloatArray]:
        """Return the sums (m,) for each shard."""
        terms = np.zeros((len(asked[0].by_payment), context.payments.size))
        for each in asked:
            terms[:, each.variables] += each.by_payment
        total = terms.sum(axis=1)
        total += _joined([each.by_follower for each in asked], axis=1).sum(axis=1)
        return [total] * len(asked)


class Earliest(NamedTuple):
    """The first time at which discount^(first + t) sum_i remainder[t, i] <= tolerance, or -1.

    Also the sum there, or the last one.
    """

    remainder: FloatArray  # (T, n)
    discount: float
    first: int
    tolerance: float

    @staticmethod
    def answers(asked: Sequence[Earliest], context: Context) -> list[tuple[int, float]]:
        """Return the answer for each shard."""
        _, *common = asked[0]
        remainder = _joined([each.remainder for each in asked], axis=1)
        return [kernels.first_below(remainder, *common)] * len(asked)


class Magnitude(NamedTuple):
    """Bound on the leader's reward, followers being in states that show the marked labels."""

    possible: NDArray[np.bool_]  # (n, L)

    @staticmethod
    def answers(asked: Sequence[Magnitude], context: Context) -> list[float]:
        """Return the answer for each shard."""
        possible = _joined([each.possible for each in asked], axis=0)
        return [context.leader.magnitude(possible)] * len(asked)


class Expected(NamedTuple):
    """E[R] (T,) at label marginals."""

    marginals: FloatArray  # (T, n, L)

    @staticmethod
    def answers(asked: Sequence[Expected], context: Context) -> list[FloatArray]:
        """Return the answer for each shard."""
        marginals = _joined([each.marginals for each in asked], axis=1)
        return [context.leader.expected(marginals)] * len(asked)


class Conditional(NamedTuple):
    """E[R | label_i = l] (T, n, L) at label marginals."""

    marginals: FloatArray  # (T, n, L)

    @staticmethod
    def answers(asked: Sequence[Conditional], context: Context) -> list[FloatArray]:
        """Return the answer for each shard."""
        marginals = _joined([each.marginals for each in asked], axis=1)
        found = context.leader.conditional(marginals)
        if len(asked) == 1:
            return [found]
        ends = np.cumsum([each.marginals.shape[1] for each in asked])[:-1]
        # Of one piece each, or the kernels that read them are compiled once more.
        return [np.ascontiguousarray(each) for each in np.split(found, ends, axis=1)]


class SlopeOfCost(NamedTuple):
    """dC/dx (k,) of costs that only know all payments together."""

    variables: NDArray[np.int64]  # (k,) which payments the shard has
    payments: FloatArray  # (k,)

    @staticmethod
    def answers(asked: Sequence[SlopeOfCost], context: PaymentsContext) -> list[FloatArray]:
        """Return the answer for each shard."""
        slope = context.cost.gradient(_gathered(asked, context))
        return [slope[each.variables] for each in asked]


class Project(NamedTuple):
    """The payments nearest to these that keep the bounds and the budget."""

    variables: NDArray[np.int64]  # (k,) which payments the shard has
    payments: FloatArray  # (k,)

    @staticmethod
    def answers(asked: Sequence[Project], context: PaymentsContext) -> list[FloatArray]:
        """Return the answer for each shard."""
        projected = context.payments.project(_gathered(asked, context))
        return [projected[each.variables] for each in asked]


class Across(NamedTuple):
    """The largest of numbers >= 0 of each payment, over the shards that it reaches."""

    variables: NDArray[np.int64]  # (k,) which payments the shard has
    numbers: FloatArray  # (k,)

    @staticmethod
    def answers(asked: Sequence[Across], context: PaymentsContext) -> list[FloatArray]:
        """Return the answer for each shard."""
        every = np.zeros(context.payments.size)
        for each in asked:
            np.maximum.at(every, each.variables, each.numbers)
        return [every[each.variables] for each in asked]


class SequentialReduce(NamedTuple):
    """Numbers (k,) of payments that go from shard to shard, each adding its own.

    A shard that is not ``done`` waits for its turn, and is answered with the numbers as the shard
    before it left them; when all are done they are answered with the last ones. ``change`` is the
    largest that some shard made.
    """

    variables: NDArray[np.int64]  # (k,) which payments the shard has
    numbers: FloatArray  # (k,)
    done: bool
    change: float = 0.0

    @staticmethod
    def answers(
        asked: Sequence[SequentialReduce], context: PaymentsContext
    ) -> list[tuple[FloatArray, float]]:
        """Return the answer for each shard, once all are done."""
        every = np.zeros(context.payments.size)
        for each in asked:
            every[each.variables] = each.numbers
        change = max(each.change for each in asked)
        return [(every[each.variables], change) for each in asked]


def run_single(steps: Generator[Query, Any, Result], context: Context) -> Result:
    """Run a generator that holds all followers, and return what it returns."""
    try:
        query = next(steps)
        while True:
            query = steps.send(query.answers((query,), context)[0])
    except StopIteration as end:
        result: Result = end.value
        return result


def _joined(parts: Sequence[Any], axis: int) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _gathered(
    asked: Sequence[SlopeOfCost] | Sequence[Project] | Sequence[Summary], context: PaymentsContext
) -> FloatArray:
    payments = np.zeros(context.payments.size)
    for each in asked:
        payments[each.variables] = each.payments
    return payments
