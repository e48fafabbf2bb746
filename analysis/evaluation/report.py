"""The numbers, page and figure of an evaluation, made from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tokenshift.analysis.evaluation.figures import at_k_curves
from tokenshift.analysis.evaluation.summary import evaluation_summary
from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text
from tokenshift.analysis.statistics.paired import ALPHA, POWER
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole

FIGURE = "at_k"

IN_TOKENS = {"length"}
"""Metrics shown in tokens; all others are shown in per cent."""

EVALUATION_METHOD = """Each problem has n responses. mean@n is the share of correct ones; pass@k the probability that \
one of k is correct, 1 - C(n-c, k) / C(n, k) with c correct (arXiv 2107.03374); majority@k the probability that the \
most frequent answer of k is correct. Both are exact expectations over the k of the n that could have been drawn; at \
k = 1 they are mean@n. Two answers are the same where accuracy_reward would accept either for the other; equally \
frequent answers win with the same chance; a response without an answer does not vote. length is in tokens, truncated \
the share of responses without an end token, formatted that of exactly one `\\boxed{}` with something in it.

Brackets are 95 % percentile bootstrap intervals, resampled by problem (within each set); with fewer than about 30 \
problems they are too narrow, and where all problems have the same value they have no width at all."""

PAIRED_METHOD = f"""Differences are the first model's minus the second's, problem by problem: both answered the same \
problems with the same seeds. p is the two-sided p-value of no difference, of a paired bootstrap by problem under the \
centred null, not corrected for the number of rows. "Minimum detectable" is the smallest true difference that a test \
at a level of {100 * ALPHA:g} % finds with a power of {100 * POWER:g} %, given how far the differences of these \
problems spread; smaller ones are found less often."""


def metric_text(name: str, entry: Mapping[str, Any] | None) -> str:
    """A metric's value with its interval, in the unit in which the metric is shown; `-` for none.

    Args:
        name: The metric's name.
        entry: `value`, `low` and `high`.
    """
    return interval_text(entry, scale=_scale(name))


def comparison_texts(name: str, comparison: Mapping[str, Any]) -> tuple[str, str, str]:
    """A metric's difference with its interval, p-value and minimum detectable difference; `-` for none.

    Args:
        name: The metric's name.
        comparison: The fields of `Comparison`.
    """
    scale = _scale(name)
    return (
        interval_text(comparison, key="difference", scale=scale, digits="+.3g", ends=".3g"),
        number_text(comparison["p_value"], digits=".2g"),
        number_text(comparison["detectable"], scale=scale, digits=".2g"),
    )


COMPARISON_COLUMNS = ("difference", "p", "minimum detectable")
"""Headings of `comparison_texts`."""


def with_unit(name: str) -> str:
    """The metric's name with the unit in which it is shown."""
    return f"{name}, tokens" if name in IN_TOKENS else f"{name}, %"


def _scale(name: str) -> float:
    return 1.0 if name in IN_TOKENS else PERCENT


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
        folder: The run's folder.
        table: Rows of `evaluate_model`, of one model, or of two, the first to be compared with the second.
        metadata: What the rows come from.
        samples: Number of responses per problem.
        ks: Each k of pass@k and majority@k.
        resamples: Number of resamples of the bootstrap.
        notes: What else a reader must know.

    Returns:
        The numbers of `evaluation_summary`.
    """
    summary = evaluation_summary(table, samples, ks, resamples=resamples)
    record = json.loads(next(iter(table_metadata(metadata).values())))
    thresholds = ("near_zero", "high")  # of divergences, which this table lacks
    record = {name: value for name, value in record.items() if name not in thresholds}
    text = json.dumps({"metadata": record, "notes": list(notes), **summary}, indent=1)
    write_whole(folder.path / "evaluation.json", text + "\n")
    write_whole(folder.path / "evaluation.md", _page(summary, record, notes))
    models = " and ".join(summary["models"])
    save_figure(at_k_curves(summary, models), folder.path / "figures" / FIGURE)
    return summary


def _page(summary: Mapping[str, Any], record: Mapping[str, Any], notes: Sequence[str]) -> str:
    hidden = ("versions", "models", "sets", "samples")
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in record.items() if name not in hidden]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [
        f"# Evaluation: {' and '.join(summary['models'])}",
        f"{summary['samples']} responses per problem; {', '.join(facts)}; {summary['resamples']:,} resamples; "
        f"{versions}.",
        *notes,
        EVALUATION_METHOD,
    ]
    if len(summary["models"]) == 2:
        parts.append(PAIRED_METHOD)
    for name, group in summary["groups"].items():
        parts.append(f"## {name}")
        parts.append(f"{group['problems']:,} problems, {group['responses']:,} responses of each model.")
        parts.append(markdown_table(*_rows(summary, group)).rstrip())
    return "\n\n".join(parts) + "\n"


def _rows(summary: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    models, comparison = summary["models"], group.get("comparison")
    header = ["", *models, *(COMPARISON_COLUMNS if comparison else ()), "problems"]
    rows = []
    for name in summary["metrics"]:
        entries = [group["models"][model][name] for model in models]
        row = [with_unit(name), *(metric_text(name, entry) for entry in entries)]
        if comparison:
            row += comparison_texts(name, comparison[name])
        judged = [entry["problems"] for entry in entries if entry] or [0]
        rows.append([*row, str(comparison[name]["problems"] if comparison else min(judged))])
    return header, rows
