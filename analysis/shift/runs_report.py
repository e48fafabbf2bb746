"""The numbers, the figure and the page of several trainings' shifts, made from their folders: no model is needed."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.report.numbers import NOT_DEFINED, interval_text, number_text
from tokenshift.analysis.report.page import Section, report_facts, saved_figures, write_report
from tokenshift.analysis.shift.figures.runs import shares_of_runs
from tokenshift.analysis.shift.group_names import SFT
from tokenshift.analysis.shift.report import NUMBERS, REPORT_FILE, kinds_by_measure, measure_words
from tokenshift.analysis.shift.runs import Run, run_of_table
from tokenshift.analysis.shift.runs_summary import runs_summary
from tokenshift.analysis.statistics.over_runs import within_bounds
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.provenance import report_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.measure import measure_name

RUNS_FILE = "runs.json"

NO_SHARES = ("mean", "at_exact_zero", "length", "high tokens")
"""Means and labels of `NUMBERS` that can be above 1."""

RUNS_VERDICTS = """Each mean is that of the runs' means. Its brackets are a 95 % interval for other runs of the \
recipe and for other problems: runs and problems are crossed random effects, the degrees of freedom Satterthwaite's. \
"Seen" and "not seen" mean that the whole interval lies on that side of what is published; "open" that it does not, \
and "open: 2 runs are too few" that fewer than three runs say nothing of training. The start and the end of responses \
are held against their middle in each run and problem, and so are the steps of the overlap. "Seen in this run" is \
said of one run, by its own bootstrap interval over problems, and does not speak of another. Simulated with 3 runs, \
such 95 % intervals held the mean in 92 to 97 % of trials. Runs of two recipes are not pairs; their problems are."""


def run_of_folder(folder: RunFolder, name: str, measure: str, *, resamples: int = 1000) -> Run:
    """A run from the folder of its finished analysis, its own intervals as its `summary.json` has them.

    Args:
        folder: The run's folder.
        name: The model's name.
        measure: The column that counts as the divergence.
        resamples: Number of resamples of the bootstrap, where the summary lacks a measure.

    Raises:
        ValueError: If the folder holds no finished analysis.
    """
    kinds = {measure: kinds_by_measure(folder.path, measure, resamples=resamples)}
    other = read_json(folder.path / "summary.json")["second"]
    if other is not None:
        kinds[other["measure"]] = other["kinds"]
    return run_of_table(folder.table, name, measure, kinds=kinds, resamples=resamples)


def write_runs_report(
    folder: RunFolder, groups: Mapping[str, Sequence[Run]], sft: Sequence[Run] = (), *, measure: str
) -> dict[str, Any]:
    """Write `runs.json`, `figures/` and `report.html` of several runs.

    Args:
        folder: Where they go.
        groups: The runs of each recipe, by its name.
        sft: The runs of SFT controls.
        measure: The measure by which statements are judged.

    Returns:
        The numbers of `runs_summary`.

    Raises:
        ValueError: If the runs do not differ by their training alone, or two are the same.
    """
    summary = runs_summary(groups, sft, measure=measure)
    metadata = {
        name: value
        for name, value in next(iter(groups.values()))[0].metadata.items()
        if name not in ("rl_model", "rl_revision", "prompts", "empty_responses")
    }
    record = report_metadata({**metadata, "measure": measure, "prompts": {}})
    record.pop("prompts", None)
    write_whole(folder.path / RUNS_FILE, json.dumps({"metadata": record, **summary}, indent=1) + "\n")
    sections = [Section("How to read this", f"{measure_words(measure, summary['top_p'])}\n\n{RUNS_VERDICTS}")]
    for kind, numbers in summary["kinds"].items():
        sections += _kind_sections(folder, summary, kind, numbers)
    counts = {**summary["groups"], **({SFT: summary["sft"]} if summary["sft"] else {})}
    write_report(
        folder.path / REPORT_FILE,
        title=f"What RL moves, over {sum(map(len, counts.values()))} runs: {record['base_model']}",
        facts=report_facts(record)
        | {f"runs, {name}": ", ".join(names) for name, names in counts.items()}
        | {"n": "; ".join(f"{numbers['problems']} problems, {kind}" for kind, numbers in summary["kinds"].items())},
        sections=sections,
        responses=[],
        token_text=str,
    )
    return summary


def _kind_sections(
    folder: RunFolder, summary: Mapping[str, Any], kind: str, numbers: Mapping[str, Any]
) -> list[Section]:
    along = f"along {kind} trajectories"
    here, second = measure_name(summary["measure"], summary["top_p"]), None
    if summary["second"] is not None:
        second = measure_name(summary["second"], summary["top_p"])
    sections = []
    for name, group in numbers["groups"].items():
        if not group["statements"]:
            continue
        runs = summary["groups"][name]
        title = f"The publication's statements, {name}, {len(runs)} {'run' if len(runs) == 1 else 'runs'}, {along}"
        sections.append(Section(title, table=statement_table(group["statements"], here, second)))
    sections.append(
        Section(
            f"Recipes side by side, {along}",
            "A shift is denser where fewer of its tokens are near zero.",
            table=statement_table(numbers["comparisons"], here, second),
        )
    )
    for name, group in numbers["groups"].items():
        if group["statements"]:
            table = _each_run(group["statements"], summary["groups"][name])
            sections.append(Section(f"Each run, {name}, {along}, by {here}", table=table))
    names = {**summary["groups"], SFT: summary["sft"]}
    for name, group in numbers["groups"].items():
        title = f"Numbers over runs, {name}, {along}, by {here}"
        sections.append(Section(title, table=_numbers(group["numbers"], names[name])))
    figure = shares_of_runs(
        {name: group["numbers"] for name, group in numbers["groups"].items()}, f"{along}, by {here}"
    )
    caption = (
        "Shares over runs: points are runs, marks with whiskers the means over runs with 95 % intervals for other "
        "runs and problems. A grey band is where the publication's statement holds."
    )
    saved = saved_figures(folder.path / "figures", {f"{kind}_shares_of_runs": (figure, caption)})
    return [*sections, Section(f"Figure, {along}", figures=saved)]


def statement_table(
    statements: Sequence[Mapping[str, Any]], here: str, second: str | None
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Header and rows of statements over runs.

    Args:
        statements: The statements or comparisons of `runs_summary`.
        here: The measure in words.
        second: The measure of the second column in words; None for no such column.
    """
    header = ["statement", "published", f"over runs, {here}", "verdict"]
    rows = [[one[key] for key in ("text", "published", "measured", "verdict")] for one in statements]
    if second is not None and any("second" in one for one in statements):
        header += [f"by {second}", "verdict by it"]
        for row, one in zip(rows, statements, strict=True):
            row += [one.get("second", ""), one.get("second_verdict", "")]
    return header, rows


def _each_run(
    statements: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    rows = [[one["text"], *(f"{run['measured']}: {run['verdict']}" for run in one["runs"])] for one in statements]
    return ["statement", *names], rows


def _numbers(
    numbers: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """One row per number: the mean over runs with its interval, the spread between runs, and each run."""
    rows = []
    for words, section, label in NUMBERS:
        if label not in numbers.get(section, {}):
            continue
        mean = numbers[section][label]
        each = [number_text(value) for value in mean["runs"]] if mean else [NOT_DEFINED] * len(names)
        top = math.inf if section in NO_SHARES or label in NO_SHARES else 1.0
        text = interval_text(mean and within_bounds(mean, top))
        rows.append([words, text, number_text(None if mean is None else mean["sd"]), *each])
    return ["", "mean over runs", "sd between runs", *names], rows
