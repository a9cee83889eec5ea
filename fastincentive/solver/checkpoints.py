"""Where a run stands, saved and loaded: to go on from with ``solve(..., checkpoint=path)``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._files import load_arrays, save_arrays
from fastincentive.errors import CheckpointWarning, InputError, invalid
from fastincentive.followers.parameterization import Direct, Parameterization
from fastincentive.io import history_arrays
from fastincentive.methods import Method
from fastincentive.methods._cutting_planes import CuttingPlanes
from fastincentive.methods._state import AscentState
from fastincentive.methods._step_control import LONGEST, SHORTEST, StepController
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import History

__all__ = ["Checkpoint"]

#: Format of the file.
VERSION = 5
#: Parts of a state that are groups of arrays.
_GROUPS: dict[str, Any] = {"planes": CuttingPlanes, "controller": StepController}
#: What to do about a file that is of no use.
REMEDY = "Remove the file to start afresh, or give the path of another."


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run's state is kept in, and the run that it belongs to.

    Attributes
    ----------
    path : Path
    every : int
        Iterations from one copy to the next.
    problem, method, parameterization
        What is solved, and how.
    payments : array (k,)
        Where the run starts.
    policies : str, array (n, S, A) or None
        Where the run starts.
    """

    path: Path
    every: int
    problem: IncentiveProblem
    method: Method
    parameterization: Parameterization
    payments: FloatArray
    policies: str | FloatArray | None

    def begin(self, state: AscentState) -> None:
        """Write the state of the first iterate.

        Raises
        ------
        InputError
            If the place has no room for it.
        """
        try:
            self._write(state, History())
        except OSError as error:
            expected = "a place with room for the state of the run"
            raise invalid("checkpoint", expected, f"{self.path} ({error})") from error

    def save(self, state: AscentState, history: History) -> None:
        """Write the state and what led to it; a place that fails is warned of, and no more."""
        try:
            self._write(state, history)
        except OSError as error:
            warnings.warn(
                f"checkpoint: {self.path} could not be written at iteration {state.iteration} "
                f"({error}); the run goes on without",
                CheckpointWarning,
                stacklevel=4,
            )

    def _write(self, state: AscentState, history: History) -> None:
        """Write a state, but for its memory of best responses, and the history up to it.

        A history that knows more than the state, or less of one column, is cut to what is true.
        """
        arrays: dict[str, Any] = {}
        for name, value in state._asdict().items():
            if name in _GROUPS:
                arrays |= {f"{name}_{part}": array for part, array in value._asdict().items()}
            elif name != "memory":
                arrays[f"state_{name}"] = value
        rows = min(state.iteration + 1, *(len(column) for column in vars(history).values()))
        known = History(**{name: column[:rows] for name, column in vars(history).items()})
        header = {"kind": "checkpoint", "run": self._run}
        save_arrays(self.path, header, arrays | history_arrays(known), VERSION)

    def load(self, history: History) -> AscentState | None:
        """Return the state, and fill an empty history with what led to it; None without a file.

        Raises
        ------
        InputError
            If the file is of another run, cut short, damaged, or if an array of it does not suit
            the problem.
        """
        try:
            header, arrays = load_arrays(self.path, "checkpoint", VERSION)
        except FileNotFoundError:
            return None
        self._check_run(header.get("run"))
        state = self._state(arrays)
        if state.iteration > self.method.most_iterations:
            raise invalid(
                "max_iter",
                f"at least {state.iteration}, where the checkpoint {self.path} stands",
                self.method.most_iterations,
                None,
                "Remove the file to start afresh.",
            )
        for name, column in self._history(arrays, state.iteration).items():
            getattr(history, name).extend(column if column.ndim > 1 else column.tolist())
        return state

    # -- whose file it is ---------------------------------------------------------------------

    @cached_property
    def _run(self) -> dict[str, str]:
        """Say what the iterates depend on, in parts that an error can name.

        The limit on iterations is left out: a run may go on under a larger one.
        """
        policies = self.policies
        if isinstance(policies, np.ndarray):
            policies = _digest(policies)
        return {
            "problem": f"{self.problem!r} {self.problem.fingerprint()}",
            "method": _without_limit(self.method),
            "parameterization": repr(self.parameterization),
            "initial_payments": _digest(self.payments),
            "initial_policies": str(policies),
        }

    def _check_run(self, found: object) -> None:
        """Raise InputError if a file's run is another than this one."""
        ours = self._run
        if not isinstance(found, dict) or found.keys() != ours.keys():
            raise InputError(f"{self.path}: the checkpoint does not say whose it is. {REMEDY}")
        for name, expected in ours.items():
            if found[name] != expected:
                raise InputError(
                    f"{self.path}: the checkpoint is of a run with another {name}: expected "
                    f"{expected}, got {found[name]}. {REMEDY}"
                )

    # -- what is in it: nothing is used before it is known to suit the problem ----------------

    def _state(self, arrays: dict[str, Any]) -> AscentState:
        """Return the state that a file holds, or raise where an array does not suit."""
        iteration = int(self._array(arrays, "state_iteration", _Span(np.int64, (), 0)))
        columns = np.shape(arrays.get("state_multipliers", 0))[1:2]
        self._require(columns > (0,), "state_multipliers", "one column or more", "none")
        found: dict[str, Any] = {}
        for name, span in self._spans(iteration, columns[0]).items():
            array = self._array(arrays, name, span)
            found[name] = array if array.ndim else array.item()
        parts = {
            name: kind(*[found[f"{name}_{part}"] for part in kind._fields])
            for name, kind in _GROUPS.items()
        }
        plain = {
            name: found[f"state_{name}"]
            for name in AscentState._fields
            if name not in (*_GROUPS, "iteration", "memory")
        }
        state = AscentState(iteration=iteration, **plain, **parts)
        followers = self.problem.followers
        taken = np.take_along_axis(followers.available, state.actions[:, :, None], axis=2)
        self._require(bool(taken.all()), "state_actions", "available actions", "others")
        try:
            self.problem.payments.check_bounds(state.payments)
            for each in (state.controller.policy_anchor, state.controller.last_policies):
                followers.check_policies(each)
            if isinstance(self.parameterization, Direct):
                followers.check_policies(state.theta)
        except InputError as error:
            raise InputError(f"{self.path}: the checkpoint is damaged: {error}. {REMEDY}") from None
        return state

    def _spans(self, iteration: int, planes: int) -> dict[str, _Span]:
        """Say what each array of a state at an iteration holds, for so many cutting planes."""
        n, states, actions = self.problem.followers.shape
        bound = self.problem.payments
        payments, policies = _Span(float, (bound.size,)), _Span(float, (n, states, actions))
        measure, length = _Span(float, (), -np.inf, np.inf), _Span(float, (), 0.0)
        return {
            "state_payments": payments,
            "state_theta": policies,
            "state_multipliers": _Span(float, (n, planes), 0.0),
            "state_actions": _Span(np.int64, (n, states), 0, actions - 1),
            "state_unit": _Span(float, (n,), np.nextafter(0.0, 1.0)),
            "planes_constant": _Span(float, (n, planes)),
            "planes_slope": _Span(float, (n, planes, bound.reach.shape[1])),
            "planes_active": _Span(bool, (n, planes)),
            "planes_used": _Span(np.int64, (n, planes), -1, iteration),
            "state_price": _Span(float, (), 0.0),
            "controller_factor": _Span(float, (), SHORTEST, LONGEST),
            "controller_merit": measure,
            "controller_window_merit": measure,
            "controller_gap": measure,
            "controller_window_gap": measure,
            "controller_anchor": payments,
            "controller_policy_anchor": policies,
            "controller_last": payments,
            "controller_last_policies": policies,
            "controller_path": length,
        }

    def _history(self, arrays: dict[str, Any], iteration: int) -> dict[str, Any]:
        """Return the columns that led to an iteration; its own row may be there, or not yet."""
        rows = arrays.get("history_objective", np.empty(0)).shape[:1]
        expected = f"{iteration} or {iteration + 1} rows"
        self._require(rows in ((iteration,), (iteration + 1,)), "history_objective", expected, rows)
        columns = {}
        for name in vars(History()):
            shape = (*rows, self.problem.payments.size) if name == "payments" else rows
            if rows == (0,) and name == "payments":
                continue  # without a row their number is not known to the file
            span = _Span(float, shape, -np.inf, np.inf)
            columns[name] = self._array(arrays, f"history_{name}", span)
        return columns

    def _array(self, arrays: dict[str, Any], name: str, span: _Span) -> Any:
        """Return an array of a file, of this type, shape and range."""
        self._require(name in arrays, name, "an array", "none")
        array, kind = arrays[name], np.dtype(span.kind)
        self._require(array.dtype == kind, name, f"numbers of type {kind}", array.dtype)
        self._require(array.shape == span.shape, name, f"shape {span.shape}", array.shape)
        if array.dtype.kind != "b":
            good = (array >= span.low) & (array <= span.high)
            expected = f"numbers from {span.low:g} to {span.high:g}, not NaN"
            self._require(bool(good.all()), name, expected, "others")
        return array.copy(order="C")

    def _require(self, so: bool, name: str, expected: str, got: object) -> None:
        if not so:
            raise InputError(
                f"{self.path}: the checkpoint is damaged: {name}: expected {expected}, got {got}. "
                f"{REMEDY}"
            )


#: Numbers are finite, unless a bound is not.
_LARGEST = np.finfo(float).max


class _Span(NamedTuple):
    """What numbers an array may hold."""

    kind: Any
    shape: tuple[int, ...]
    low: float = -_LARGEST
    high: float = _LARGEST


def _digest(array: FloatArray) -> str:
    """Return a digest of numbers."""
    return sha256(np.ascontiguousarray(array, float).tobytes()).hexdigest()[:16]


def _without_limit(method: Method) -> str:
    """Write a method with its settings, but for ``max_iter``."""
    names = getattr(method, "__dataclass_fields__", None)
    if names is None:
        return repr(method)
    settings = [f"{name}={getattr(method, name)!r}" for name in names if name != "max_iter"]
    return f"{type(method).__name__}({', '.join(settings)})"
