"""The page and the JSON of a reproduction, made from the parts' products."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.report import accuracy_table, outcome_table, remarks, verdict_lines
from tokenshift.analysis.cross_sampling.report import needed_text
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text, spread_text
from tokenshift.analysis.report.page import Section, report_facts, write_report
from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.provenance import report_metadata
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.console import duration
from tokenshift.recipes.command_line.products import MODEL_DIR, REPRODUCTION_FILE, SUMMARY_FILE
from tokenshift.recipes.jobs.reproduction.agreement import Agreement, agreements
from tokenshift.recipes.jobs.reproduction.arguments import ReproduceJob, recorded_settings
from tokenshift.recipes.jobs.reproduction.parts import (
    CROSS,
    EVOLUTION,
    ROBUSTNESS,
    SFT,
    SHIFT,
    TRAININGS,
    Part,
    cell_folder,
)
from tokenshift.recipes.jobs.reproduction.rows import (
    ALONG,
    ARM_NAMES,
    PUBLISHED_ACCURACY,
    Row,
    cross_by_draws,
    cross_label,
    cross_parts,
    done_parts,
    every_row,
    read_json,
)

PAGE_FILE = "reproduction.html"

SECTIONS = {
    2: "Characterisation: which distributions move",
    3: "Cross-sampling: are those tokens the cause",
    4: "Mechanics: what moves inside a changed distribution",
    5: "Divergence-weighted advantage",
}

HOW_TO_READ = """Each row is a statement of the publication (arXiv 2603.22446), its figure, and ours. JS is that of \
distributions truncated to top-p, as published. The last two columns have the same by whole distributions, for \
cross-sampling by the other way to draw, and for trainings by the final accuracy.

Brackets are 95 % intervals for other trainings of the recipe and for other problems: both are crossed random \
effects. "Seen" means that the whole interval lies where the publication has the figure, "not seen" that none of it \
does, "open" neither. Statements that each training decides by itself (the mixture, the evolution) are seen, or not \
seen, where all of them say so. With fewer than three trainings nothing is said of training. Verdicts are of this \
model and these problems: a small model, or a short task, can lack what a large one shows."""

CROSS_TEXT = """The publication's table, with a row per budget: RL's tokens where the criterion lies above a \
threshold that was found, in each training, for a wanted share of effective replacements. The control, \
random_disagreement, takes the intervention's token at a random share of the positions where the two draws differ, at \
as many effective replacements. A policy that covers nearly all disagreements recovers nearly all by construction."""

CURVES_TEXT = """Areas are mean recoveries over the first 10 % of tokens, against effective replacements. Where the \
intervention's tokens everywhere (criterion all, above) replace less than 10 %, every curve is level beyond, and \
areas are alike by construction: on pocket 2.8 % forward, so that 72 of 100 points are the same for every criterion. \
What 50 % and 90 % of the gain need tells criteria apart."""

SHIFT_FIGURES = {
    "sparsity": (2, "how JS is distributed over tokens"),
    "relative_position": (2, "JS against the position in the response"),
    "distance_positions": (2, "JS against the distance to landmarks"),
    "entropy_by_js": (2, "entropy of both models in bins of JS"),
    "joint_histogram": (2, "JS and entropy together"),
    "token_identity": (2, "the tokens that are frequent among high ones, and their JS"),
    "quantile_curve": (2, "quantiles of JS"),
    "overlap": (4, "overlap of the top-k candidates"),
    "base_ranks": (4, "rank under the base of RL's most probable token"),
    "mass_moved": (4, "probability that moved, by rank under the base"),
}
"""Figures of a single run: name -> the publication's section and what it shows."""

TABLE_TEXTS = {"Cross-sampling": CROSS_TEXT, "Tokens that the gain needs": CURVES_TEXT}
"""First words of a table's title -> the text above the table."""

OTHER_FIGURES = {
    "percentiles": "percentiles of JS over checkpoints",
    "jaccard": "overlap of the set of high tokens with that of the last checkpoint",
    "overlap_accuracy": "overlap of candidates, and accuracy, over checkpoints",
    "forward_accuracy_effective_count": "accuracy by effective replacements a response, RL intervenes",
    "forward_accuracy_effective": "accuracy by the share of effective replacements, RL intervenes",
    "backward_accuracy_effective_count": "accuracy by effective replacements a response, the base intervenes",
    "backward_accuracy_effective": "accuracy by the share of effective replacements, the base intervenes",
    "robustness": "shares across temperature, top-p, and whose responses they are",
    "learning_area": "area under the learning curve, a circle a seed, and differences to DAPO",
    "final_accuracy": "final accuracy, a circle a seed, and differences to DAPO",
    "training_reward": "reward in training",
}
"""Captions of other figures, by file name."""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def write_reproduction(job: ReproduceJob) -> dict[str, Any]:
    """Write `reproduction.json` and `reproduction.html` from what the parts have left so far.

    Returns:
        What the JSON holds: `scale`, `seeds`, `settings`, `metadata`, `rows` (see `Row`, and the `commands` that make
        each), `agreements` with the other seeds (None without), `against`, `tables` by title, and `parts`, with the
        command, the seconds and the state of each.
    """
    rows = every_row(job.parts, job.seeds)
    judged = None if job.other is None else agreements(rows, job.other)
    tables = every_table(job.parts, job.seeds)
    commands = {part.name: part.shown_command() for part in job.parts}
    parts = [
        {
            "name": part.name,
            "kind": part.kind,
            "state": part.state,
            "seconds": part.seconds,
            "command": commands[part.name],
            "failure": part.failure,
        }
        for part in job.parts
    ]
    metadata = report_metadata({"parallel": job.parallel})
    record = {
        "scale": job.name,
        "seeds": job.seeds,
        "settings": recorded_settings(job),
        "metadata": metadata,
        "rows": [{**row.as_dict(), "commands": [commands[name] for name in row.parts]} for row in rows],
        "agreements": None if judged is None else [one.as_dict() for one in judged],
        "against": None if job.other is None else {"seeds": job.other["seeds"], "path": job.args.against},
        "tables": {title: {"header": header, "rows": body} for title, (_, (header, body)) in tables.items()},
        "parts": parts,
    }
    write_whole(job.folder / REPRODUCTION_FILE, json.dumps(record, indent=1, default=str) + "\n")
    write_report(
        job.folder / PAGE_FILE,
        title=f"Reproduction at the scale {job.name}, seeds {' '.join(map(str, job.seeds))}",
        facts=_facts(job, rows, metadata),
        sections=_sections(job, rows, judged, tables),
        responses=[],
        token_text=str,
    )
    return record


def _facts(job: ReproduceJob, rows: Sequence[Row], metadata: Mapping[str, Any]) -> dict[str, str]:
    problems = sorted({row.problems for row in rows if row.problems is not None})
    return {
        "arms": ", ".join([*(ARM_NAMES.get(arm, arm) for arm in job.scale.comparison["variants"]), ARM_NAMES["SFT"]]),
        "seeds": ", ".join(map(str, job.seeds)),
        "problems": ", ".join(map(str, problems)),
        "time of all parts, added up": duration(sum(part.seconds for part in job.parts)),
        **report_facts(metadata),
    }


def _sections(
    job: ReproduceJob,
    rows: Sequence[Row],
    judged: Sequence[Agreement] | None,
    tables: Mapping[str, tuple[int, Table]],
) -> list[Section]:
    sections = [Section("How to read this", HOW_TO_READ)]
    unfinished = [part for part in job.parts if part.state != "done"]
    if unfinished:
        lines = [f"{part.name}: {part.state}. {part.failure or ''}".strip() for part in unfinished]
        sections.append(Section("Parts that have not ended", "\n\n".join(lines)))
    if judged is not None and job.other is not None:
        sections.append(_agreement_section(job, judged))
    figures = every_figure(job)
    for number, words in SECTIONS.items():
        of_section = [row for row in rows if row.section == number]
        title = f"Section {number}. {words}"
        if of_section:
            sections.append(Section(title, table=row_table(of_section)))
        for name, (section, table) in tables.items():
            if section == number:
                text = next((words for start, words in TABLE_TEXTS.items() if name.startswith(start)), "")
                sections.append(Section(name, text, table=table))
        if figures[number]:
            sections.append(Section(f"Figures of section {number}", figures=figures[number]))
    header = ("part", "command", "time", "state")
    commands = [(part.name, part.shown_command(), duration(part.seconds), part.state) for part in job.parts]
    sections.append(Section("Commands and durations", table=(header, commands)))
    return sections


def row_table(rows: Sequence[Row]) -> Table:
    """Header and rows of the statements of a section."""
    header = (
        "row",
        "arm",
        "statement",
        "published",
        "ours",
        "n",
        "seeds",
        "verdict",
        "beside it",
        "verdict by it",
        "part",
    )
    body = [
        (
            *(
                row.row,
                row.arm,
                row.statement,
                row.published,
                row.measured,
                "" if row.problems is None else str(row.problems),
            ),
            *(" ".join(map(str, row.seeds)), row.verdict),
            *(f"{row.second_by}: {row.second}" if row.second else "", row.second_verdict, ", ".join(row.parts)),
        )
        for row in rows
    ]
    return header, body


def _agreement_section(job: ReproduceJob, judged: Sequence[Agreement]) -> Section:
    assert job.other is not None
    mine, theirs = (" ".join(map(str, seeds)) for seeds in (job.seeds, job.other["seeds"]))
    same = sum(one.agrees for one in judged)
    text = (
        f"{same} of {len(judged)} statements have the same verdict with the seeds {mine} and with the seeds {theirs}; "
        "the others are left open."
    )
    header = ("row", "arm", "statement", f"seeds {mine}", "verdict", f"seeds {theirs}", "verdict", "together")
    body = [
        (
            *(one.row.row, one.row.arm, one.row.statement, one.row.measured, one.row.verdict),
            *(("", "") if one.other is None else (one.other["measured"], one.other["verdict"])),
            one.verdict,
        )
        for one in judged
    ]
    return Section("Two sets of seeds", text, table=(header, body))


# Tables ----------------------------------------------------------------------------------------------------------


def every_table(parts: Sequence[Part], seeds: Sequence[int]) -> dict[str, tuple[int, Table]]:
    """The publication's tables with ours beside them: title -> the publication's section, header and rows."""
    tables: dict[str, tuple[int, Table]] = {}
    for part in done_parts(parts, ROBUSTNESS):
        body = [row["cells"] for row in read_json(part.product)]
        tables[f"Robustness, DAPO, seed {seeds[0]}"] = (2, (ROBUSTNESS_COLUMNS, body))
    swept = cross_parts(parts)
    for (arm, benchmark), of_both in swept.items():
        for draws, summary in cross_by_draws(of_both).items():
            runs = f"{summary['runs']} trainings, {summary['problems']} problems"
            title = f"Cross-sampling of {cross_label(arm, benchmark)}, {draws} draws, {runs}"
            tables[title] = (3, cross_table(summary))
    for (arm, benchmark), of_both in swept.items():
        curves, of = curve_table(of_both), f", {cross_label(arm, benchmark)}" if len(swept) > 1 else ""
        if curves[1]:
            tables[f"Tokens that the gain needs, and areas up to 10 % of tokens, each training{of}"] = (3, curves)
    for part in done_parts(parts, EVOLUTION):
        tables[f"Evolution of DAPO, seed {part.seed}"] = (4, evolution_table(read_json(part.product)))
    for part in done_parts(parts, TRAININGS):
        comparison = read_json(part.product)
        tables["Accuracy, Mean@k, in %, beside the publication's"] = (5, published_accuracies(comparison))
        tables["Accuracy and tests, in %"] = (5, accuracy_table(comparison))
        name = comparison["outcome"]["name"]
        if name != "final_accuracy":
            tables["The outcome that decides, in %"] = (5, outcome_table(comparison, name))
        lines = [*verdict_lines(comparison), *remarks(comparison, comparison["failed"])]
        tables["Verdicts and remarks of the comparison"] = (5, (["", ""], [["", line] for line in lines]))
    summaries = [(part, read_json(part.folder / SUMMARY_FILE)) for part in done_parts(parts, SFT)]
    if summaries:
        header = ["seed", "outcome", "updates", "accuracy", "target"]
        body = [
            [str(part.seed), one["outcome"], str(one["updates"]), *_sft_accuracies(one)] for part, one in summaries
        ]
        tables["The SFT controls, trained up to DAPO's accuracy on the held-out problems"] = (2, (header, body))
    return tables


def _sft_accuracies(summary: Mapping[str, Any]) -> list[str]:
    accuracies = (summary["accuracy"]["mean"], summary["target"]["accuracy"])
    return [number_text(value, scale=PERCENT, digits=".1f") for value in accuracies]


def cross_table(summary: Mapping[str, Any]) -> Table:
    """Header and rows of the publication's table of cross-sampling: means over trainings."""
    header = ["direction", "criterion", "wanted %", "effective %", "effective #", "covered %", "length"]
    header += ["accuracy from %", "to %"]
    rows = []
    for policy in summary["policies"]:
        start = summary["levels"]["base" if policy["direction"] == "forward" else "rl"]
        percent = [interval_text(policy[name], scale=PERCENT, digits=".1f") for name in ("effective", "covered")]
        rows.append(
            [
                *(policy["direction"], policy["criterion"]),
                number_text(policy["budget"], scale=PERCENT, digits="g"),
                *(percent[0], interval_text(policy["effective_count"], digits=".2f"), percent[1]),
                interval_text(policy["length"], digits=".0f"),
                number_text(None if start is None else start["value"], scale=PERCENT, digits=".1f"),
                interval_text(policy["accuracy"], scale=PERCENT, digits=".1f"),
            ]
        )
    return header, rows


def curve_table(parts: Sequence[Part]) -> Table:
    """Header and rows of each training's curves: effective replacements for 50 % and 90 % of the gain, and areas."""
    header = ["seed", "draws", "direction", "criterion", "50 % needs #", "90 % needs #", "area %", "less reference"]
    rows = []
    for part in parts:
        for curve in read_json(part.product)["curves"]:
            needed = curve["needed"]["effective_count"]
            rows.append(
                [
                    *(str(part.seed), part.settings["draws"], curve["direction"], curve["criterion"]),
                    *(needed_text(needed[name]) for name in ("50", "90")),
                    interval_text(curve["area_effective_10"], scale=PERCENT, digits=".1f"),
                    interval_text(curve.get("area_effective_10_difference"), scale=PERCENT, digits="+.1f"),
                ]
            )
    return header, rows


def evolution_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Header and rows of a training's checkpoints."""
    header = ["update", "p50", "p90", "p95", "p99", "near zero %", "high %", "Jaccard, last", "accuracy %"]
    body = [
        [
            str(row["step"]),
            *(number_text(row["quantiles"][name]["value"], digits=".2g") for name in ("0.5", "0.9", "0.95", "0.99")),
            *(interval_text(row[name], scale=PERCENT, digits=".1f") for name in ("near_zero", "high")),
            interval_text(row["jaccard_final"], digits=".2f"),
            interval_text(row["accuracy"], scale=PERCENT, digits=".1f"),
        ]
        for row in rows
    ]
    return header, body


def published_accuracies(comparison: Mapping[str, Any]) -> Table:
    """Header and rows of the publication's table of section 5, with ours behind it."""
    sets = list(comparison["sets"])
    header = ["arm", "AIME24", "AIME25", "AMC", "mean, published", *(f"{name}, ours" for name in sets)]
    header += ["mean, ours"] if len(sets) > 1 else []
    rows = []
    for row in comparison["variants"]:
        arm = row["variant"]
        ours = [spread_text(row["sets"][name], scale=PERCENT, digits=".2f") for name in sets]
        ours += [spread_text(row["accuracy"], scale=PERCENT, digits=".2f")] if len(sets) > 1 else []
        rows.append([ARM_NAMES.get(arm, arm), *PUBLISHED_ACCURACY.get(arm, ("-",) * 4), *ours])
    return header, rows


# Figures ---------------------------------------------------------------------------------------------------------


def every_figure(job: ReproduceJob) -> dict[int, list[tuple[str, str]]]:
    """The figures that the parts have drawn, by the publication's section: those over runs, and those of a single run
    for the first seed.

    Returns:
        The SVG text and the caption of each.
    """
    figures: dict[int, list[tuple[str, str]]] = {number: [] for number in SECTIONS}
    seed = job.seeds[0]
    for part in done_parts(job.parts, SHIFT):
        _add(figures[2], part.folder / "figures" / f"{ALONG}_shares_of_runs", "Shares over all trainings.")
        for arm in part.arms:
            model = str(cell_folder(job.folder, arm, seed) / MODEL_DIR)
            folder = part.folder / "runs" / file_name(model) / "figures"
            for name, (section, words) in SHIFT_FIGURES.items():
                caption = f"{ARM_NAMES.get(arm, arm)}, seed {seed}: {words}."
                _add(figures[section], folder / f"{ALONG}_{name}", caption)
    for kind, section in ((ROBUSTNESS, 2), (CROSS, 3), (EVOLUTION, 4)):
        for part in done_parts(job.parts, kind):
            if part.seed in (None, seed):
                for name, words in OTHER_FIGURES.items():
                    caption = f"{cross_label(part.arms[0], part.benchmark)}, {part.name}: {words}."
                    _add(figures[section], part.folder / "figures" / name, caption)
    for part in done_parts(job.parts, TRAININGS):
        for name, words in OTHER_FIGURES.items():
            _add(figures[5], part.folder / "figures" / name, f"{words[0].upper()}{words[1:]}.")
    return figures


def _add(figures: list[tuple[str, str]], path: Path, caption: str) -> None:
    file = path.with_suffix(".svg")
    if file.is_file() and (text := file.read_text(encoding="utf-8")):
        figures.append((text, caption))
