"""The numbers, page and figure of an evaluation, made from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tokenshift.analysis.evaluation.figures import at_k_curves
from tokenshift.analysis.evaluation.summary import REWARD, evaluation_summary, has_graded_rewards
from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import NOT_DEFINED, PERCENT, interval_text, number_text
from tokenshift.analysis.sampling.correctness import correctness_words, none_correct_remark
from tokenshift.analysis.statistics.paired import ALPHA, POWER
from tokenshift.analysis.storage.provenance import report_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import CORRECT

FIGURE = "at_k"

IN_TOKENS = {"length"}
"""Metrics shown in tokens. The mean reward has no unit, and all others are shown in per cent."""

NO_ANSWERS = "n/a"
"""The text of a majority where there is none, because no answers were taken or nothing was judged."""

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
    """A metric's value with its interval, in the unit in which the metric is shown; `-` or `n/a` for none.

    Args:
        name: The metric's name.
        entry: `value`, `low` and `high`.
    """
    return interval_text(entry, scale=_scale(name), missing=_missing(name))


def comparison_texts(name: str, comparison: Mapping[str, Any]) -> tuple[str, str, str]:
    """A metric's difference with its interval, p-value and minimum detectable difference; `-` or `n/a` for none.

    Args:
        name: The metric's name.
        comparison: The fields of `Comparison`.
    """
    scale, missing = _scale(name), _missing(name)
    return (
        interval_text(comparison, key="difference", scale=scale, digits="+.3g", ends=".3g", missing=missing),
        number_text(comparison["p_value"], digits=".2g", missing=missing),
        number_text(comparison["detectable"], scale=scale, digits=".2g", missing=missing),
    )


COMPARISON_COLUMNS = ("difference", "p", "minimum detectable")
"""Headings of `comparison_texts`."""


def with_unit(name: str) -> str:
    """The metric's name with the unit in which it is shown."""
    if name == REWARD:
        return "mean reward"
    return f"{name}, tokens" if name in IN_TOKENS else f"{name}, %"


def _scale(name: str) -> float:
    return 1.0 if name in IN_TOKENS or name == REWARD else PERCENT


def _missing(name: str) -> str:
    return NO_ANSWERS if name.startswith("majority@") else NOT_DEFINED


def grading_notes(table: pa.Table, metadata: Mapping[str, Any]) -> list[str]:
    """The notes on how responses were graded: the rule, and what could not be counted.

    Args:
        table: Rows of `evaluate_model`.
        metadata: `reward`, `correct_threshold` and `answer_extractor` as in `RewardGrader.rule`; it may lack them.
    """
    notes = []
    words = correctness_words(metadata)
    if words is not None:
        notes.append(f"A response counts as correct where {words}.")
    if not voting(table, metadata):
        reason = (
            f"the reward {metadata['reward']} names no answer extractor. Register one with it, or name one by "
            "--answer_extractor."
            if metadata.get("reward") is not None
            else "no response has a vote."
        )
        notes.append(f"majority@k is {NO_ANSWERS}: {reason}")
    rewards = table[REWARD].to_pylist() if REWARD in table.column_names else []
    remark = none_correct_remark(rewards, metadata.get("correct_threshold", CORRECT))
    return notes if remark is None else [*notes, remark]


def voting(table: pa.Table, metadata: Mapping[str, Any]) -> bool:
    """Whether answers were taken from the responses, so that there is a majority.

    A grader of a user's own does not say: then it is whether any response has a vote.

    Args:
        table: Rows of `evaluate_model`.
        metadata: As for `grading_notes`. Without an `answer_extractor` it is `math`.
    """
    if metadata.get("reward") is None:
        return bool(table["vote"].null_count < table.num_rows)
    return metadata.get("answer_extractor", "math") is not None


def caption_rule(table: pa.Table, metadata: Mapping[str, Any]) -> str | None:
    """The rule of correct responses for a figure's caption; None where each reward is 0 or 1 and 1 is correct."""
    if metadata.get("correct_threshold", CORRECT) == CORRECT and not has_graded_rewards(table):
        return None
    return correctness_words(metadata)


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
        The numbers of `evaluation_summary`, and `notes` with those about the grading.
    """
    summary = evaluation_summary(table, samples, ks, resamples=resamples, voting=voting(table, metadata))
    record = report_metadata(metadata)
    notes = [*notes, *grading_notes(table, metadata)]
    thresholds = ("near_zero", "high")  # of divergences, which this table lacks
    record = {name: value for name, value in record.items() if name not in thresholds}
    summary = {"notes": notes, **summary}
    text = json.dumps({"metadata": record, **summary}, indent=1)
    write_whole(folder.path / "evaluation.json", text + "\n")
    write_whole(folder.path / "evaluation.md", _page(summary, record, notes))
    models = " and ".join(summary["models"])
    figure = at_k_curves(summary, models, caption_rule(table, metadata))
    save_figure(figure, folder.path / "figures" / FIGURE)
    return summary


def _page(summary: Mapping[str, Any], record: Mapping[str, Any], notes: Sequence[str]) -> str:
    hidden = ("versions", "models", "sets", "samples", "correct_threshold")
    facts = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in record.items()
        if name not in hidden and value is not None
    ]
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
