"""The numbers, figures and page of a run, from what is on disk: no model is needed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.figures.style import save
from tokenshift.analysis.report.page import ExploredResponse, Section, write_report
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

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"

EXPLORED_VALUES = (
    "js",
    "js_top_p",
    "forward_kl",
    "reverse_kl",
    "entropy_base",
    "entropy_rl",
    "logp_base",
    "logp_rl",
    "rank_base",
    "rank_rl",
)

METHOD = """JS is between the whole next-token distributions of base and RL model at the given temperature, in nats; \
the truncated JS is between distributions cut to top-p, as the publication has it. High means JS > 0.1, the \
publication's threshold; near zero means JS < 0.001, a threshold of this project's, since the publication gives none. \
Brackets, bands and whiskers are 95 % bootstrap intervals, resampled by problem.

"Seen" and "not seen" mean that the whole interval lies on that side of what is published; "open" that it does \
not. Two statements go by values: of the frequent tokens more than half decides, of the overlap's rise that the first \
step is twice the second. A toy model or a short task can lack what a large one shows."""

NUMBERS = (
    ("accuracy", "response", "accuracy"),
    ("length, tokens", "response", "length"),
    ("high tokens a response", "response", "high tokens"),
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
"""What the page's first table lists: its words, and where in a group's means it is."""


def read_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of an analysis.

    Raises:
        ValueError: if there is none.
    """
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        groups = [groups["all"] for groups in found["kinds"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(folder)!r} holds no {SUMMARY_FILE} of a finished shift analysis.") from error
    if not groups:
        raise ValueError(f"The analysis in {str(folder)!r} is empty.")
    return found


def write_shift_report(
    folder: RunFolder, tokenizer: PreTrainedTokenizerBase, *, resamples: int = 1000, control: Path | None = None
) -> dict[str, list[Statement]]:
    """Write `summary.json`, `figures/` and `report.html` of a scored run.

    Args:
        folder: of the run.
        tokenizer: the models'.
        resamples: of the bootstrap.
        control: folder of the SFT control's analysis.

    Returns:
        The publication's statements, by kind of trajectory.
    """
    metadata = read_metadata(table_files(folder.table)[0])
    summary = summarise(folder.table, resamples=resamples)
    write_whole(folder.path / SUMMARY_FILE, json.dumps({"metadata": metadata, "kinds": summary}) + "\n")
    controls: dict[str, Any] = {} if control is None else read_summary(control)["kinds"]
    others = {kind: controls.get(kind, next(iter(controls.values()), None)) for kind in summary}
    verdicts = {
        kind: statements(groups["all"], other["all"] if (other := others[kind]) is not None else None)
        for kind, groups in summary.items()
    }
    sections = [Section("How to read this", METHOD)]
    for kind, groups in summary.items():
        name = f"{metadata['rl_model']}, {kind} trajectories"
        sections.append(
            Section(f"The publication's statements, along {kind} trajectories", **_statements(verdicts[kind]))
        )
        sections.append(Section(f"Numbers, {kind} trajectories", table=_numbers(groups)))
        figures = summary_figures(groups, name, others[kind])
        drawn = _drawn(folder, {f"{kind}_{file}": each for file, each in figures.items()})
        sections.append(Section(f"Figures, {kind} trajectories", figures=drawn))
    group = next(iter(summary.values()))["all"]
    write_report(
        folder.path / REPORT_FILE,
        title=f"What RL moved: {metadata['base_model']} to {metadata['rl_model']}",
        facts=_facts(metadata)
        | {"n": f"{group['tokens']} tokens, {group['responses']} responses, {group['problems']} problems"},
        sections=sections,
        responses=explored(folder, metadata["prompts"]),
        token_text=lambda token: str(tokenizer.decode([token])),
    )
    return verdicts


def explored(folder: RunFolder, prompts: Mapping[str, str]) -> list[ExploredResponse]:
    """The responses whose most probable tokens were kept, with all that the page shows of them.

    Args:
        folder: of the run.
        prompts: texts by problem.
    """
    tops = read_explored(folder)
    found = []
    for batch in response_batches(folder.table) if tops else ():
        position, length = column(batch, "position"), column(batch, "length")
        for start in np.flatnonzero(position == 0).tolist():
            rows = batch.slice(start, int(length[start]))
            first = rows.slice(0, 1).to_pylist()[0]
            key = (first["trajectory"], first["problem_id"], first["sample_id"])
            if key in tops:
                found.append(_explored(rows, first, prompts[str(first["problem_id"])], *tops[key]))
    return sorted(found, key=lambda each: (each.problem_id, each.sample_id, each.trajectory))


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
    folder: RunFolder, rows: Sequence[dict[str, Any]], found: Sequence[Statement], metadata: Mapping[str, Any]
) -> None:
    """Write the figures and the page of an evolution.

    Args:
        folder: of the run.
        rows: of `evolution_rows`.
        found: of `evolution_statements`.
        metadata: what the rows come from.
    """
    title = f"{metadata['base_model']}, n = {rows[-1]['tokens']} tokens"
    header = ("checkpoint", "JS p50", "p95", "p99", "JS < 1e-3", "JS > 0.1", "Jaccard with last", "accuracy")
    cells = [
        (
            row["label"],
            *(_number(row["quantiles"][name]) for name in ("0.5", "0.95", "0.99")),
            *(_number(row[name]) for name in ("near_zero", "high", "jaccard_final", "accuracy")),
        )
        for row in rows
    ]
    sections = [
        Section("How to read this", METHOD),
        Section("The publication's statements", **_statements(found)),
        Section("Checkpoints", table=(header, cells)),
        Section("Figures", figures=_drawn(folder, evolution_figures(rows, title))),
    ]
    _page(folder, f"How shifts grew: {metadata['rl_model']}", metadata, sections)


def write_robustness_report(folder: RunFolder, rows: Sequence[dict[str, Any]], metadata: Mapping[str, Any]) -> None:
    """Write the figure and the page of a sweep.

    Args:
        folder: of the run.
        rows: of `robustness_row`.
        metadata: what the rows come from.
    """
    figures = robustness_figures(rows, f"{metadata['base_model']} to {metadata['rl_model']}")
    sections = [
        Section("How to read this", METHOD),
        Section(
            "Settings", "Shares in %, with 95 % intervals.", table=(ROBUSTNESS_COLUMNS, [row["cells"] for row in rows])
        ),
        Section("Figure", figures=_drawn(folder, figures)),
    ]
    _page(folder, f"Do the findings stand: {metadata['rl_model']}", metadata, sections)


def _page(folder: RunFolder, title: str, metadata: Mapping[str, Any], sections: Sequence[Section]) -> None:
    write_report(
        folder.path / REPORT_FILE,
        title=title,
        facts=_facts(metadata),
        sections=sections,
        responses=[],
        token_text=str,
    )


def _facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    hidden = ("prompts", "versions", "near_zero", "high")
    named = {name: value for name, value in metadata.items() if name not in hidden and value is not None}
    facts = {name.replace("_", " "): str(value) for name, value in named.items()}
    if "versions" in metadata:
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())
    return facts


def _numbers(groups: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    names = [name for name in GROUPS if name in groups]
    rows = [
        (words, *(_number(labelled_estimate(groups[name]["means"][section], label)) for name in names))
        for words, section, label in NUMBERS
        if label in groups["all"]["means"].get(section, {"labels": ()})["labels"]
    ]
    counts = [(what, *(f"{groups[name][what]:,}" for name in names)) for what in ("tokens", "responses", "problems")]
    return ("", *names), [*counts, *rows]


def _statements(found: Sequence[Statement]) -> dict[str, Any]:
    rows = [(each.text, each.published, each.found, each.verdict) for each in found]
    return {"table": (("statement", "published", "here", "verdict"), rows)}


def _drawn(folder: RunFolder, figures: Mapping[str, tuple[Figure, str]]) -> list[tuple[str, str]]:
    """Save figures as PNG and SVG; SVG text and caption of each."""
    found = []
    for name, (figure, caption) in figures.items():
        path = save(figure, folder.path / "figures" / name)
        found.append((path.with_suffix(".svg").read_text(encoding="utf-8"), caption))
    return found


def _number(value: Mapping[str, Any] | None) -> str:
    return "-" if value is None else f"{value['value']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"
