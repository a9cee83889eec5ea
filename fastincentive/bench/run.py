"""Run suites: build each case, race its contenders, keep the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from fastincentive._files import json_text, write_atomically
from fastincentive._progress import progress_bar
from fastincentive.bench import report
from fastincentive.bench.case import Case, chosen
from fastincentive.bench.roofline import copy_bandwidth
from fastincentive.bench.suite_methods import gain_shares
from fastincentive.bench.suite_scaling import exponents
from fastincentive.bench.suites import SUITES
from fastincentive.bench.timing import FAILED, race
from fastincentive.errors import invalid

__all__ = ["ROUNDS", "run"]

#: Profile -> rounds.
ROUNDS = {"smoke": 3, "regular": 7, "large": 5}
#: Profile -> seconds that a peer may take in one case before it stops taking turns.
BUDGET = {"smoke": 1.0, "regular": 3.0, "large": math.inf}
_BAR = "{desc} {n_fmt}/{total_fmt}|{bar}| {elapsed}"


def run(
    suites: Sequence[str],
    profile: str = "smoke",
    text: str = "",
    rounds: int | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the cases of some suites.

    Parameters
    ----------
    suites : sequence of str
    profile : "smoke", "regular" or "large"
    text : str
        Only cases whose name, with the suite's in front (``peers/best-response/...``), holds it.
    rounds : int, optional
        By default those of the profile.
    path : str or Path, optional
        JSON file that is written anew after every case, so that nothing is lost by a stop.
    progress : bool
        Whether a bar is shown (tqdm).

    Returns
    -------
    dict
        As the JSON: ``environment``, ``settings``, ``results`` (one record per case), ``failed``
        (names of cases whose certificate our answer missed), ``exponents`` (of the curves of the
        scaling suite), ``gain_shares`` (of the suite of methods, by model and method) and
        ``copy_bytes_per_second``.

    Raises
    ------
    InputError
        If no case is left, or an argument is not as described.
    """
    # Slow peers may leave early, unless the rounds were asked for.
    budget = BUDGET[profile] if rounds is None else math.inf
    rounds = ROUNDS[profile] if rounds is None else rounds
    if rounds < 1:
        raise invalid("rounds", "an integer >= 1", rounds)
    picked = [
        (suite, case)
        for suite in suites
        for case in chosen(SUITES[suite](), profile)
        if text in f"{suite}/{case.name}"
    ]
    if not picked:
        raise invalid("filter", "text in the name of some case", repr(text))
    found: dict[str, Any] = {
        "format": report.FORMAT,
        "environment": report.surroundings(),
        "settings": {"suites": list(suites), "profile": profile, "rounds": rounds, "filter": text},
        "results": [],
        "failed": [],
        "exponents": {},
        "gain_shares": {},
        "copy_bytes_per_second": None,
    }
    bar = progress_bar(len(picked), form=_BAR) if progress else None
    for suite, case in picked:
        if bar is not None:
            bar.set_description_str(f"{suite}/{case.name}")
        _add(found, suite, case, rounds, budget)
        found["exponents"] = exponents(found["results"])
        found["gain_shares"] = gain_shares(found["results"])
        if path is not None:
            write_atomically(path, json_text(found, indent=1).encode())
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
    return found


def _add(found: dict[str, Any], suite: str, case: Case, rounds: int, budget: float) -> None:
    began = perf_counter()
    trial = case.build()
    built = perf_counter() - began
    outcomes = race(trial, rounds, budget)
    bandwidth = None
    if any(outcome.moved is not None for outcome in outcomes):
        bandwidth = found["copy_bytes_per_second"] = copy_bandwidth()
    each = report.record(suite, case.name, trial.tolerance, outcomes, trial.skipped, bandwidth)
    each["series"] = case.series
    each["build_seconds"] = built
    found["results"].append(each)
    if outcomes[0].status == FAILED:
        found["failed"].append(f"{suite}/{case.name}")
