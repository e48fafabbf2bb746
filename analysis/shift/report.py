"""The numbers, figures and page of a shift analysis, made from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.report.explorer_data import EXPLORED_VALUES, ExploredResponse
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text
from tokenshift.analysis.report.page import Section, report_facts, saved_figures, write_report
from tokenshift.analysis.report.statements import Statement, deciding_words, of_this_run
from tokenshift.analysis.shift.claims import statements
from tokenshift.analysis.shift.conclusions import shift_conclusions
from tokenshift.analysis.shift.exact_zero_words import exact_zero_rows
from tokenshift.analysis.shift.figures.every_figure import summary_figures
from tokenshift.analysis.shift.figures.evolution import evolution_figures
from tokenshift.analysis.shift.figures.robustness import robustness_figures
from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS, TRUNCATION_COLUMNS, truncation_cells
from tokenshift.analysis.shift.summary import GROUPS, group_estimate, summarise
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.explored import read_explored
from tokenshift.analysis.token_table.measure import (
    DEFAULT_MEASURE,
    FULL_JS,
    SHIFT_MEASURES,
    TRUNCATED_JS,
    measure_name,
    second_measure,
    truncation,
)
from tokenshift.analysis.token_table.reader import column_names, response_batches, table_files

SHIFT_SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"

NEAR_AND_HIGH = """High means JS > 0.1, the publication's threshold; near zero means JS < 0.001, a threshold of this \
project's, since the publication gives none."""

BY_PROBLEM = "Brackets, bands and whiskers are 95 % bootstrap intervals, resampled by problem."

VERDICTS = """"Seen" and "not seen" mean that the whole interval lies on that side of what is published; "open" \
that it does not. Two statements are decided by values alone: the one on frequent tokens by more than half of them, \
the one on the overlap's rise by a first step of at least 10 points that is more than twice the second. Both are said \
of this run alone: the intervals are for other problems, and another training can move other tokens. A toy model or a \
short task can lack what a large one shows."""

TRUNCATION = """Where one and the same token holds top-p of the probability under both models, it is the whole of \
both truncated distributions, and the truncated JS is exactly 0, however far the whole distributions are apart. So a \
truncated sparsity is mostly a statement about confidence: the table has the share of such tokens, and the full JS \
among them."""

SWEPT_TRUNCATION = (
    f"{TRUNCATION} Of whole distributions an exact 0 is no truncation: float32 tells no difference there."
)

SAME = "same"
"""The text of a number that the other measure does not change."""


def measure_words(measure: str, top_p: float | None) -> str:
    """The measure of a page in words, and the thresholds by which tokens are near zero and high.

    Args:
        measure: The column that counts as the divergence.
        top_p: What `js_top_p` truncates to; None if it is not known.
    """
    between = "the next-token distributions of base and RL model at the given temperature, in nats"
    cut = "top-p" if top_p is None else f"top-p {top_p:g}"
    truncated, full = f"cut to {cut} and renormalised, as the publication has it", "whole"
    first, second = (truncated, full) if measure == TRUNCATED_JS else (full, truncated)
    if measure not in SHIFT_MEASURES:
        return f"JS stands for the column {measure}. {NEAR_AND_HIGH}"
    other = measure_name(second_measure(measure) or "", top_p)
    return (
        f"The measure of this page is {measure_name(measure, top_p)}: JS is between {between}, {first}. The second "
        f"column, where there is one, has the same by {other}: distributions {second}. {NEAR_AND_HIGH}"
    )


def method(measure: str, top_p: float | None) -> str:
    """The text on how to read a page: its measure, the thresholds, the intervals, and the verdicts.

    Args:
        measure, top_p: As of `measure_words`.
    """
    return f"{measure_words(measure, top_p)} {BY_PROBLEM}\n\n{VERDICTS}"


NUMBERS = (
    ("accuracy", "response", "accuracy"),
    ("length, tokens", "response", "length"),
    ("high tokens per response", "response", "high tokens"),
    ("share with JS < 0.001", "sparsity", "< 0.001"),
    ("share with truncated JS exactly 0", "exact_zero", "exact zero"),
    ("mean JS, nats, where truncated JS is 0", "at_exact_zero", "js"),
    ("share with JS > 0.1", "sparsity", "> 0.1"),
    ("mean truncated JS, nats", "mean", "js_top_p"),
    ("mean JS, nats", "mean", "js"),
    ("mean KL(base‖RL), nats", "mean", "forward_kl"),
    ("mean KL(RL‖base), nats", "mean", "reverse_kl"),
    ("mean entropy of base, nats", "mean", "entropy_base"),
    ("mean entropy of RL, nats", "mean", "entropy_rl"),
    ("top-2 overlap, high tokens", "overlap_high", "2"),
    ("RL's top-1 in base's top 3, high tokens", "rank_high", "<= 3"),
    ("RL's top-1 improbable under base, high tokens", "improbable_high", "< 0.01"),
)
"""Rows of the page's table of numbers: the row's name, and where in a group's means its number is."""


def read_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of an analysis.

    Raises:
        ValueError: If there is none.
    """
    try:
        record: dict[str, Any] = read_json(folder / SHIFT_SUMMARY_FILE)
        groups = [groups["all"] for groups in record["kinds"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(folder)!r} holds no {SHIFT_SUMMARY_FILE} of a finished shift analysis.") from error
    if not groups:
        raise ValueError(f"The analysis in {str(folder)!r} is empty.")
    return record


def kinds_by_measure(folder: Path, measure: str, *, resamples: int = 1000) -> dict[str, Any]:
    """The numbers of a finished analysis by a measure, by kind of trajectory: read, or made of the analysis's table.

    Args:
        folder: The analysis's folder.
        measure: The column that counts as the divergence.
        resamples: Number of resamples of the bootstrap, where the numbers are made anew.

    Raises:
        ValueError: If the folder holds no finished analysis, or neither such numbers nor a table to make them of.
    """
    record = read_summary(folder)
    kinds = _kinds_of(record, measure)
    return kinds if kinds is not None else summarise(RunFolder(folder).table, measure=measure, resamples=resamples)


def _kinds_of(record: Mapping[str, Any], measure: str) -> dict[str, Any] | None:
    """The numbers by a measure of a `summary.json`; None where it has none. Old ones are of the full JS."""
    parts = {record.get("measure", FULL_JS): record["kinds"]}
    if record.get("second"):
        parts[record["second"]["measure"]] = record["second"]["kinds"]
    return parts.get(measure)


def check_control(folder: Path, measure: str) -> None:
    """Refuse the folder of a control that has no numbers by a measure, and no table to make them of.

    Args:
        folder: The folder of the control's analysis.
        measure: The column that counts as the divergence.

    Raises:
        ValueError: In one line.
    """
    if _kinds_of(read_summary(folder), measure) is None and not RunFolder(folder).table.is_dir():
        raise ValueError(
            f"The analysis in {str(folder)!r} has no numbers of measure={measure!r} and no table to make them of; "
            "analyze those models again, or give the measure that it has."
        )


def write_shift_report(
    folder: RunFolder,
    tokenizer: PreTrainedTokenizerBase,
    *,
    measure: str = DEFAULT_MEASURE,
    resamples: int = 1000,
    control: Path | None = None,
) -> dict[str, list[Statement]]:
    """Write `summary.json`, `figures/` and `report.html` of a scored run.

    Args:
        folder: The run's folder, with its table.
        tokenizer: The models' tokenizer.
        measure: The column that counts as the divergence, `js_top_p` or `js`; the other one is the second column.
        resamples: Number of resamples of the bootstrap.
        control: The folder of the SFT control's analysis.

    Returns:
        The publication's statements, by kind of trajectory.

    Raises:
        ValueError: If the table has no such column.
    """
    metadata = read_metadata(table_files(folder.table)[0]) | {"measure": measure}
    top_p = truncation(metadata)
    other = second_measure(measure, column_names(folder.table))
    summary = summarise(folder.table, measure=measure, resamples=resamples)
    seconds = {} if other is None else summarise(folder.table, measure=other, resamples=resamples)
    record = {"metadata": metadata, "measure": measure, "top_p": top_p, "kinds": summary}
    record["second"] = None if other is None else {"measure": other, "kinds": seconds}
    write_whole(folder.path / SHIFT_SUMMARY_FILE, json.dumps(record) + "\n")
    others = _controls(control, measure, list(summary), resamples)
    second_others = {} if other is None else _controls(control, other, list(summary), resamples)
    verdicts = {
        kind: statements(
            groups["all"],
            _all(others.get(kind)),
            second=_all(seconds.get(kind)),
            second_control=_all(second_others.get(kind)),
        )
        for kind, groups in summary.items()
    }
    sections = []
    for kind, groups in summary.items():
        name = f"{metadata['rl_model']}, {kind} trajectories"
        sections.append(
            Section(
                f"The publication's statements, along {kind} trajectories",
                **_statements(verdicts[kind], measure, top_p),
            )
        )
        filled = {name: groups[name] for name in GROUPS if name in groups}
        if zeros := exact_zero_rows(filled):
            title = f"How much of the sparsity is truncation, {kind} trajectories"
            sections.append(Section(title, TRUNCATION, table=(("", *filled), [*_near_zero_rows(filled), *zeros])))
        sections.append(Section(f"Numbers, {kind} trajectories", table=_numbers(groups, seconds.get(kind))))
        figures = summary_figures(groups, name, others.get(kind), seconds.get(kind))
        saved = saved_figures(
            folder.path / "figures", {f"{kind}_{figure_name}": figure for figure_name, figure in figures.items()}
        )
        sections.append(Section(f"Figures, {kind} trajectories", figures=saved))
    sections.append(Section("How to read this", method(measure, top_p)))
    group = next(iter(summary.values()))["all"]
    write_report(
        folder.path / REPORT_FILE,
        conclusions=shift_conclusions(summary),
        title=f"What RL moved: {metadata['base_model']} to {metadata['rl_model']}",
        facts=report_facts(metadata)
        | {"n": f"{group['tokens']} tokens, {group['responses']} responses, {group['problems']} problems"},
        sections=sections,
        responses=explored(folder, metadata["prompts"]),
        token_text=lambda token: str(tokenizer.decode([token])),
        shaded=measure if measure in SHIFT_MEASURES else FULL_JS,
    )
    return verdicts


def _all(groups: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if groups is None else groups["all"]


def _controls(control: Path | None, measure: str, kinds: Sequence[str], resamples: int) -> dict[str, Any]:
    """The control's groups for each kind of trajectory: of the same kind, or of the first that it has."""
    if control is None:
        return {}
    controls = kinds_by_measure(control, measure, resamples=resamples)
    return {kind: controls.get(kind, next(iter(controls.values()))) for kind in kinds}


def _near_zero_rows(groups: Mapping[str, Any]) -> list[list[str]]:
    """Shares of near-zero and of high tokens by both measures, for the table on truncation."""
    rows = []
    for words, name in ((f"JS < {NEAR_ZERO:g}", "near_zero"), (f"JS > {HIGH:g}", "high")):
        for measure in SHIFT_MEASURES:
            estimates = [group_estimate(group, name, measure) for group in groups.values()]
            cells = [interval_text(estimate, scale=PERCENT, digits=".1f") for estimate in estimates]
            rows.append([f"{'truncated' if measure == TRUNCATED_JS else 'full'} {words}, %", *cells])
    return rows


def explored(folder: RunFolder, prompts: Mapping[str, str]) -> list[ExploredResponse]:
    """The responses whose most probable tokens were kept, with all that the page shows of them.

    Args:
        folder: The run's folder.
        prompts: The prompts' texts by problem.

    Returns:
        The responses by problem, sample and trajectory.
    """
    tops = read_explored(folder)
    responses = []
    for batch in response_batches(folder.table) if tops else ():
        position, length = column(batch, "position"), column(batch, "length")
        for start in np.flatnonzero(position == 0).tolist():
            rows = batch.slice(start, int(length[start]))
            first = rows.slice(0, 1).to_pylist()[0]
            key = (first["trajectory"], first["problem_id"], first["sample_id"])
            if key in tops:
                responses.append(_explored(rows, first, prompts[str(first["problem_id"])], *tops[key]))
    return sorted(responses, key=lambda response: (response.problem_id, response.sample_id, response.trajectory))


def _explored(
    rows: pa.Table, first: dict[str, Any], prompt: str, ids: np.ndarray, logps: np.ndarray
) -> ExploredResponse:
    return ExploredResponse(
        problem_id=first["problem_id"],
        sample_id=first["sample_id"],
        trajectory=first["trajectory"],
        correct=first["correct"],
        prompt=prompt,
        tokens=rows["token"].to_pylist(),
        values={name: column(rows, name) for name in EXPLORED_VALUES},
        top_ids=ids,
        top_logps=logps,
    )


def write_evolution_report(
    folder: RunFolder, rows: Sequence[dict[str, Any]], judged: Sequence[Statement], metadata: Mapping[str, Any]
) -> None:
    """Write the figures and the page of an evolution.

    Args:
        folder: The run's folder.
        rows: The checkpoints' numbers, of `evolution_rows`.
        judged: The publication's statements, of `evolution_statements`.
        metadata: What the rows come from.
    """
    title = f"{metadata['base_model']}, n = {rows[-1]['tokens']} tokens"
    measure, top_p = rows[-1]["measure"], rows[-1]["top_p"]
    sections = [
        Section("How to read this", method(measure, top_p)),
        Section("The publication's statements", **_statements(judged, measure, top_p)),
        Section(
            f"Checkpoints, by {measure_name(measure, top_p)}", table=_checkpoints(rows, [row["label"] for row in rows])
        ),
    ]
    seconds = [row["second"] for row in rows]
    if None not in seconds:
        name = measure_name(seconds[-1]["measure"], top_p)
        sections.append(
            Section(f"Checkpoints, by {name}", table=_checkpoints(seconds, [row["label"] for row in rows]))
        )
    figures = saved_figures(folder.path / "figures", evolution_figures(rows, title))
    _page(
        folder, f"How shifts grew: {metadata['rl_model']}", metadata, [*sections, Section("Figures", figures=figures)]
    )


def _checkpoints(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """One row of text for each checkpoint, by the rows' measure; truncated ones with their exact zeros."""
    truncated = rows[-1]["measure"] == TRUNCATED_JS
    zeros = ("exactly 0", "full JS there, mean", "largest") if truncated else ()
    header = ("checkpoint", "JS p50", "p95", "p99", "JS < 1e-3", *zeros, "JS > 0.1", "Jaccard with last", "accuracy")
    cells = []
    for label, row in zip(labels, rows, strict=True):
        beside_near_zero = (
            (
                interval_text(row["exact_zero"]),
                interval_text(row["js_at_exact_zero"]),
                number_text(row["js_max_at_exact_zero"]),
            )
            if truncated
            else ()
        )
        cells.append(
            (
                label,
                *(interval_text(row["quantiles"][name]) for name in ("0.5", "0.95", "0.99")),
                interval_text(row["near_zero"]),
                *beside_near_zero,
                *(interval_text(row.get(name)) for name in ("high", "jaccard_final", "accuracy")),
            )
        )
    return header, cells


def write_robustness_report(
    folder: RunFolder, rows: Sequence[dict[str, Any]], metadata: Mapping[str, Any], measure: str = DEFAULT_MEASURE
) -> None:
    """Write the figures and the page of a sweep.

    Args:
        folder: The run's folder.
        rows: The settings' numbers, of `robustness_row`.
        metadata: What the rows come from.
        measure: The measure whose rows come first.
    """
    figures = robustness_figures(rows, f"{metadata['base_model']} to {metadata['rl_model']}")
    sections = [
        Section("How to read this", method(measure, None)),
        Section(
            "How much of the sparsity is truncation",
            SWEPT_TRUNCATION,
            table=(TRUNCATION_COLUMNS, truncation_cells(rows)),
        ),
        Section(
            "Settings", "Shares in %, with 95 % intervals.", table=(ROBUSTNESS_COLUMNS, [row["cells"] for row in rows])
        ),
        Section("Figures", figures=saved_figures(folder.path / "figures", figures)),
    ]
    _page(folder, f"Do the findings stand: {metadata['rl_model']}", metadata, sections)


def _page(folder: RunFolder, title: str, metadata: Mapping[str, Any], sections: Sequence[Section]) -> None:
    write_report(
        folder.path / REPORT_FILE,
        title=title,
        facts=report_facts(metadata),
        sections=sections,
        responses=[],
        token_text=str,
    )


def _numbers(
    groups: Mapping[str, Any], second: Mapping[str, Any] | None
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table of numbers: one column for each group, then all responses by the other measure where that differs."""
    columns = {name: groups[name] for name in GROUPS if name in groups}
    if second is not None:
        columns[f"all, by {measure_name(second['all']['measure'], second['all']['top_p'])}"] = second["all"]
    rows = []
    for words, section, label in NUMBERS:
        if label in groups["all"]["means"].get(section, {"labels": ()})["labels"]:
            cells = [interval_text(group_estimate(group, section, label)) for group in columns.values()]
            if second is not None and cells[-1] == cells[0]:
                cells[-1] = SAME
            rows.append((words, *cells))
    counts = [
        (what, *(SAME if group is _all(second) else f"{group[what]:,}" for group in columns.values()))
        for what in ("tokens", "responses", "problems")
    ]
    return ("", *columns), [*counts, *rows]


def _verdict(statement: Statement) -> str:
    words = deciding_words(statement)
    return f"{of_this_run(statement.verdict)}: {words}" if words else of_this_run(statement.verdict)


def _statements(judged: Sequence[Statement], measure: str, top_p: float | None) -> dict[str, Any]:
    header: list[str] = ["statement", "published", f"here, {measure_name(measure, top_p)}", "verdict"]
    rows = [[statement.text, statement.published, statement.measured, _verdict(statement)] for statement in judged]
    if any(statement.second is not None for statement in judged):
        header += [f"by {measure_name(second_measure(measure) or '', top_p)}", "verdict by it"]
        for row, statement in zip(rows, judged, strict=True):
            row += [statement.second or "", of_this_run(statement.second_verdict)]
    return {"table": (header, rows)}
