"""The numbers, page and figure of an evaluation, from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tokenshift.analysis.evaluation.figures import at_k_curves
from tokenshift.analysis.evaluation.summary import evaluation_summary
from tokenshift.analysis.figures.style import save
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.statistics.paired import ALPHA, POWER
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole

FIGURE = "at_k"

UNIT = {"length": 1.0}
"""What a number is multiplied by to be shown: tokens; all else is shown in per cent."""

METHOD = """Each problem has n responses. mean@n is the share of correct ones; pass@k the probability that one of k \
is correct, 1 - C(n-c, k) / C(n, k) with c correct (arXiv 2107.03374); majority@k the probability that the most \
frequent answer of k is correct. Both are exact expectations over the k of the n that could have been drawn; at k = 1 \
they are mean@n. Answers are one where accuracy_reward would accept either for the other; equally frequent ones win \
with the same chance; a response without an answer does not vote. length is in tokens, truncated the share of \
responses without an end token, formatted that of exactly one `\\boxed{}` with something in it.

Brackets are 95 % percentile bootstrap intervals, resampled by problem (within each set); with fewer than about 30 \
problems they are too narrow, and where all problems have the same value they have no width at all."""

PAIRED = f"""Differences are the first model's minus the second's, problem by problem: both answered the same \
problems with the same seeds. p is the two-sided p-value of no difference, of a paired bootstrap by problem under the \
centred null, not corrected for the number of rows. "Could show" is the smallest true difference that a test at a \
level of {100 * ALPHA:g} % finds with a power of {100 * POWER:g} %, given how far the differences of these problems \
spread; smaller ones are found less often."""


def shown(name: str, entry: Mapping[str, Any] | None, key: str = "value", sign: str = "") -> str:
    """A metric's number with its interval, in the unit it is shown in; `-` for none.

    Args:
        name: of the metric.
        entry: with `low`, `high`, and the number under `key`.
        key: `value` or `difference`.
        sign: of the number's format; `+` for differences.
    """
    if entry is None or entry[key] is None:
        return "-"
    unit = UNIT.get(name, 100.0)
    value = f"{unit * entry[key]:{sign}.3g}"
    return value if entry["low"] is None else f"{value} [{unit * entry['low']:.3g}, {unit * entry['high']:.3g}]"


def shown_p(p_value: float | None) -> str:
    """A p-value with two digits; `-` for none."""
    return "-" if p_value is None else f"{p_value:.2g}"


def shown_detectable(name: str, comparison: Mapping[str, Any]) -> str:
    """The smallest difference that could have been shown, in the metric's unit; `-` for none."""
    value = comparison["detectable"]
    return "-" if value is None else f"{UNIT.get(name, 100.0) * value:.2g}"


def unit_of(name: str) -> str:
    """The metric's name with the unit it is shown in."""
    return f"{name}, tokens" if name in UNIT else f"{name}, %"


def write_evaluation_report(
    folder: RunFolder,
    table: pa.Table,
    metadata: Mapping[str, Any],
    *,
    samples: int,
    ks: Sequence[int],
    resamples: int = 10_000,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `evaluation.json`, `evaluation.md` and `figures/`.

    Args:
        folder: of the run.
        table: rows of `evaluate_model`, of one model, or of two, the first to be compared with the second.
        metadata: what rows come from.
        samples: responses a problem.
        ks: of pass@k and majority@k.
        resamples: of the bootstrap.
        notes: what else a reader must know.

    Returns:
        `evaluation_summary`'s numbers.
    """
    summary = evaluation_summary(table, samples, ks, resamples=resamples)
    record = json.loads(next(iter(table_metadata(metadata).values())))
    unlike = ("near_zero", "high")  # thresholds of other tables
    record = {name: value for name, value in record.items() if name not in unlike}
    text = json.dumps({"metadata": record, "notes": list(notes), **summary}, indent=1)
    write_whole(folder.path / "evaluation.json", text + "\n")
    write_whole(folder.path / "evaluation.md", _page(summary, record, notes))
    models = " and ".join(summary["models"])
    save(at_k_curves(summary, models), folder.path / "figures" / FIGURE)
    return summary


def _page(summary: Mapping[str, Any], record: Mapping[str, Any], notes: Sequence[str]) -> str:
    hidden = ("versions", "models", "sets", "samples")
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in record.items() if name not in hidden]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [
        f"# Evaluation: {' and '.join(summary['models'])}",
        f"{summary['samples']} responses a problem; {', '.join(facts)}; {summary['resamples']:,} resamples; "
        f"{versions}.",
        *notes,
        METHOD,
    ]
    if len(summary["models"]) == 2:
        parts.append(PAIRED)
    for name, group in summary["groups"].items():
        parts.append(f"## {name}")
        parts.append(f"{group['problems']:,} problems, {group['responses']:,} responses of each model.")
        parts.append(markdown_table(*_rows(summary, group)).rstrip())
    return "\n\n".join(parts) + "\n"


def _rows(summary: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    models, comparison = summary["models"], group.get("comparison")
    header = ["", *models, *(["difference", "p", "could show"] if comparison else []), "problems"]
    rows = []
    for name in summary["metrics"]:
        entries = [group["models"][model][name] for model in models]
        row = [unit_of(name), *(shown(name, entry) for entry in entries)]
        if comparison:
            own = comparison[name]
            row += [shown(name, own, "difference", "+"), shown_p(own["p_value"]), shown_detectable(name, own)]
        counted = [entry["problems"] for entry in entries if entry] or [0]
        rows.append([*row, str(comparison[name]["problems"] if comparison else min(counted))])
    return header, rows
