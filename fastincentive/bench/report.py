"""What a run of benchmarks prints, and what its JSON holds."""

from __future__ import annotations

import math
import os
from typing import Any

from fastincentive._tables import text_table
from fastincentive.bench.suite_methods import SUITE as METHODS
from fastincentive.bench.suite_methods import method_rows
from fastincentive.bench.timing import OK, Outcome, quartiles
from fastincentive.reports.environment import environment, version

__all__ = ["PEERS", "as_table", "as_text", "duration", "record", "surroundings"]

#: Packages that are compared with.
PEERS = ("jax", "jaxlib", "mdpsolver", "quantecon")
#: Cases in which a contender is quicker by more than this factor are named.
SLOW = 3.0
_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
FORMAT = 1
#: What the tables of methods mean.
METHODS_LEGEND = (
    "objective: at exact best responses, ties broken for the leader, after the last payments were",
    "moved to the cheapest that support their response; as it ended: without that move. No search",
    "over regimes follows. gain: share of the best gain over no payments. gap: the largest of the",
    "method's own last iterate. steps: iterations, or evaluations (ev); *: not converged.",
)


def surroundings() -> dict[str, Any]:
    """Versions, threads and CPU, those of the peers included."""
    found = environment()
    found["peers"] = {name: version(name) for name in PEERS}
    found["threads"] |= {name: os.environ.get(name) for name in _THREADS}
    return found


def record(
    suite: str,
    case: str,
    tolerance: float,
    outcomes: list[Outcome],
    skipped: tuple[str, ...],
    bandwidth: float | None = None,
) -> dict[str, Any]:
    """Plain data about one case; ``bandwidth`` is that of copying, in bytes per second."""
    return {
        "suite": suite,
        "case": case,
        "tolerance": tolerance,
        "skipped": list(skipped),
        "contenders": [_contender(each, bandwidth) for each in outcomes],
    }


def _contender(outcome: Outcome, bandwidth: float | None) -> dict[str, Any]:
    """Raw samples and what is made of them; nothing about time unless the certificate passed."""
    found: dict[str, Any] = {
        "name": outcome.name,
        "status": outcome.status,
        "error": outcome.error,
        "message": outcome.message,
    }
    if outcome.status == OK:
        found |= {
            "first_seconds": outcome.first_seconds,
            "calls_per_sample": outcome.calls,
            "samples": outcome.samples,
            "quartiles": quartiles(outcome.samples),
            "ratios": outcome.ratios,
            "ratio_quartiles": quartiles(outcome.ratios),
            "facts": outcome.facts,
        }
        if outcome.moved is not None:
            speed = outcome.moved / outcome.median
            found |= {"bytes_moved": outcome.moved, "bytes_per_second": speed}
            if bandwidth is not None:
                found["share_of_copy_bandwidth"] = speed / bandwidth
    return found


def duration(seconds: float) -> str:
    """Seconds with a unit that suits, three digits."""
    if not math.isfinite(seconds):
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def as_table(records: list[dict[str, Any]]) -> str:
    """One line per contender: status, median and quartiles, ratio to ours and its quartiles."""
    roofline = any("share_of_copy_bandwidth" in c for r in records for c in r["contenders"])
    facts = any(c.get("facts") for r in records for c in r["contenders"])
    rows = []
    for each in records:
        for k, contender in enumerate(each["contenders"]):
            row = [each["case"] if k == 0 else "", contender["name"], contender["status"]]
            if "quartiles" in contender:
                low, middle, high = contender["quartiles"]
                row += [duration(middle), f"{duration(low)} .. {duration(high)}"]
                low, middle, high = contender["ratio_quartiles"]
                row += ["", ""] if k == 0 else [f"{middle:.3g}", f"{low:.3g} .. {high:.3g}"]
            else:
                row += [contender["message"], "", "", ""]
            row.append("" if math.isnan(contender["error"]) else f"{contender['error']:.1e}")
            if roofline:
                share = contender.get("share_of_copy_bandwidth")
                row.append("" if share is None else f"{100 * share:.0f} %")
            if facts:
                told = contender.get("facts", {}).items()
                row.append(", ".join(f"{name} {_short(value)}" for name, value in told))
            rows.append(row)
    header = ["case", "contender", "status", "median", "quartiles", "ratio", "quartiles", "error"]
    align = "lllrrrrr"
    if roofline:
        header.append("of copying")
        align += "r"
    if facts:
        header.append("facts")
        align += "l"
    return text_table(header, rows, align)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _slower(record: dict[str, Any]) -> str:
    """Name a case where somebody else is quicker by more than ``SLOW``, and by how much."""
    ratios = [
        each["ratio_quartiles"][1] for each in record["contenders"][1:] if "ratio_quartiles" in each
    ]
    least = min(ratios, default=1.0)
    return f"{record['case']} ({1.0 / least:.1f} times)" if least < 1.0 / SLOW else ""


def as_text(found: dict[str, Any]) -> str:
    """Everything that is printed: the machine, the table, who was skipped, what failed."""
    around = found["environment"]
    machine, threads = around["machine"], around["threads"]
    settings = found["settings"]
    lines = [
        f"{machine['cpu']}, {machine['usable_cores']} cores, {threads['numba_threads']} threads; "
        f"profile {settings['profile']}, {settings['rounds']} rounds",
    ]
    compared = [each for each in found["results"] if each["suite"] == METHODS]
    timed = [each for each in found["results"] if each["suite"] != METHODS]
    if timed:
        lines += ["", as_table(timed)]
    for each in compared:
        lines += ["", each["case"], text_table(*method_rows(each))]
    if compared:
        lines += ["", *METHODS_LEGEND]
    skipped = dict.fromkeys(line for each in found["results"] for line in each["skipped"])
    if skipped:
        lines += ["", *(f"skipped: {line}" for line in skipped)]
    slow = [name for each in timed if (name := _slower(each))]
    if slow:
        lines += ["", *(f"SLOWER than {SLOW:g} times the quickest: {name}" for name in slow)]
    if found["exponents"]:
        lines += ["", "time grows like"]
        lines += [f"  {name} ** {power:.2f}" for name, power in found["exponents"].items()]
    if found["copy_bytes_per_second"] is not None:
        lines += ["", f"copying moves {found['copy_bytes_per_second'] / 1e9:.1f} GB/s, one thread"]
    if found["failed"]:
        lines += ["", *(f"FAILED its certificate, not timed: {name}" for name in found["failed"])]
    return "\n".join(lines)
