"""The numbers, figures and page of a shift analysis, made from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.report.explorer_data import EXPLORED_VALUES, ExploredResponse
from tokenshift.analysis.report.numbers import interval_text
from tokenshift.analysis.report.page import Section, report_facts, saved_figures, write_report
from tokenshift.analysis.shift.claims import Statement, statements
from tokenshift.analysis.shift.figures.every_figure import summary_figures
from tokenshift.analysis.shift.figures.evolution import evolution_figures
from tokenshift.analysis.shift.figures.robustness import robustness_figures
from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS
from tokenshift.analysis.shift.summary import GROUPS, labelled_estimate, summarise
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.explored import read_explored
from tokenshift.analysis.token_table.reader import response_batches, table_files

SHIFT_SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"

SHIFT_METHOD = """JS is between the whole next-token distributions of base and RL model at the given temperature, in \
nats; the truncated JS is between distributions cut to top-p, as the publication has it. High means JS > 0.1, the \
publication's threshold; near zero means JS < 0.001, a threshold of this project's, since the publication gives none. \
Brackets, bands and whiskers are 95 % bootstrap intervals, resampled by problem.

"Seen" and "not seen" mean that the whole interval lies on that side of what is published; "open" that it does not. \
Two statements are decided by values alone: the one on frequent tokens by more than half of them, the one on the \
overlap's rise by a first step that is twice the second. A toy model or a short task can lack what a large one \
shows."""

NUMBERS = (
    ("accuracy", "response", "accuracy"),
    ("length, tokens", "response", "length"),
    ("high tokens per response", "response", "high tokens"),
    ("share with JS < 0.001", "sparsity", "< 0.001"),
    ("share with JS > 0.1", "sparsity", "> 0.1"),
    ("mean JS, nats", "mean", "js"),
    ("mean truncated JS, nats", "mean", "js_top_p"),
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
        record: dict[str, Any] = json.loads((folder / SHIFT_SUMMARY_FILE).read_text(encoding="utf-8"))
        groups = [groups["all"] for groups in record["kinds"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(folder)!r} holds no {SHIFT_SUMMARY_FILE} of a finished shift analysis.") from error
    if not groups:
        raise ValueError(f"The analysis in {str(folder)!r} is empty.")
    return record


def write_shift_report(
    folder: RunFolder, tokenizer: PreTrainedTokenizerBase, *, resamples: int = 1000, control: Path | None = None
) -> dict[str, list[Statement]]:
    """Write `summary.json`, `figures/` and `report.html` of a scored run.

    Args:
        folder: The run's folder, with its table.
        tokenizer: The models' tokenizer.
        resamples: Number of resamples of the bootstrap.
        control: The folder of the SFT control's analysis.

    Returns:
        The publication's statements, by kind of trajectory.
    """
    metadata = read_metadata(table_files(folder.table)[0])
    summary = summarise(folder.table, resamples=resamples)
    write_whole(folder.path / SHIFT_SUMMARY_FILE, json.dumps({"metadata": metadata, "kinds": summary}) + "\n")
    controls: dict[str, Any] = {} if control is None else read_summary(control)["kinds"]
    others = {kind: controls.get(kind, next(iter(controls.values()), None)) for kind in summary}
    verdicts = {
        kind: statements(groups["all"], other["all"] if (other := others[kind]) is not None else None)
        for kind, groups in summary.items()
    }
    sections = [Section("How to read this", SHIFT_METHOD)]
    for kind, groups in summary.items():
        name = f"{metadata['rl_model']}, {kind} trajectories"
        sections.append(
            Section(f"The publication's statements, along {kind} trajectories", **_statements(verdicts[kind]))
        )
        sections.append(Section(f"Numbers, {kind} trajectories", table=_numbers(groups)))
        figures = summary_figures(groups, name, others[kind])
        saved = saved_figures(
            folder.path / "figures", {f"{kind}_{figure_name}": figure for figure_name, figure in figures.items()}
        )
        sections.append(Section(f"Figures, {kind} trajectories", figures=saved))
    group = next(iter(summary.values()))["all"]
    write_report(
        folder.path / REPORT_FILE,
        title=f"What RL moved: {metadata['base_model']} to {metadata['rl_model']}",
        facts=report_facts(metadata)
        | {"n": f"{group['tokens']} tokens, {group['responses']} responses, {group['problems']} problems"},
        sections=sections,
        responses=explored(folder, metadata["prompts"]),
        token_text=lambda token: str(tokenizer.decode([token])),
    )
    return verdicts


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
    header = ("checkpoint", "JS p50", "p95", "p99", "JS < 1e-3", "JS > 0.1", "Jaccard with last", "accuracy")
    cells = [
        (
            row["label"],
            *(interval_text(row["quantiles"][name]) for name in ("0.5", "0.95", "0.99")),
            *(interval_text(row[name]) for name in ("near_zero", "high", "jaccard_final", "accuracy")),
        )
        for row in rows
    ]
    sections = [
        Section("How to read this", SHIFT_METHOD),
        Section("The publication's statements", **_statements(judged)),
        Section("Checkpoints", table=(header, cells)),
        Section("Figures", figures=saved_figures(folder.path / "figures", evolution_figures(rows, title))),
    ]
    _page(folder, f"How shifts grew: {metadata['rl_model']}", metadata, sections)


def write_robustness_report(folder: RunFolder, rows: Sequence[dict[str, Any]], metadata: Mapping[str, Any]) -> None:
    """Write the figure and the page of a sweep.

    Args:
        folder: The run's folder.
        rows: The settings' numbers, of `robustness_row`.
        metadata: What the rows come from.
    """
    figures = robustness_figures(rows, f"{metadata['base_model']} to {metadata['rl_model']}")
    sections = [
        Section("How to read this", SHIFT_METHOD),
        Section(
            "Settings", "Shares in %, with 95 % intervals.", table=(ROBUSTNESS_COLUMNS, [row["cells"] for row in rows])
        ),
        Section("Figure", figures=saved_figures(folder.path / "figures", figures)),
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


def _numbers(groups: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    names = [name for name in GROUPS if name in groups]
    rows = [
        (words, *(interval_text(labelled_estimate(groups[name]["means"][section], label)) for name in names))
        for words, section, label in NUMBERS
        if label in groups["all"]["means"].get(section, {"labels": ()})["labels"]
    ]
    counts = [(what, *(f"{groups[name][what]:,}" for name in names)) for what in ("tokens", "responses", "problems")]
    return ("", *names), [*counts, *rows]


def _statements(judged: Sequence[Statement]) -> dict[str, Any]:
    rows = [(statement.text, statement.published, statement.measured, statement.verdict) for statement in judged]
    return {"table": (("statement", "published", "here", "verdict"), rows)}
