"""Every statement of the publication's sections 2 to 5 with its figure and ours, from the parts' products."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow.parquet as pq

from tokenshift.analysis.comparison.outcomes import OUTCOMES
from tokenshift.analysis.comparison.verdicts import HIGHER, LOWER
from tokenshift.analysis.cross_sampling.recovery import COLUMNS
from tokenshift.analysis.cross_sampling.runs import cross_runs_summary
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text, spread_text
from tokenshift.analysis.report.statements import (
    NOT_SEEN,
    OPEN,
    SEEN,
    agreed,
    of_runs,
    within,
)
from tokenshift.analysis.shift.claims import (
    CANDIDATE_CLAIMS,
    ENTROPY_CLAIMS,
    FREQUENT_LOW,
    NEAR_ZERO_CLAIM,
    OVERLAP_CLAIM,
    OVERLAP_RISES,
    POSITION_CLAIMS,
)
from tokenshift.analysis.shift.evolution import evolution_statements
from tokenshift.analysis.shift.runs import Run
from tokenshift.analysis.shift.runs_report import run_of_folder
from tokenshift.analysis.shift.runs_summary import NO_SUCH_RUNS, compared_across_prompts
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.jobs.reproduction.file import DAPO, HIGH_KL, LOW_KL, SIMPLE_RL
from tokenshift.recipes.jobs.reproduction.parts import CROSS, EVOLUTION, SHIFT, TRAININGS, Part

ARM_NAMES = {DAPO: "DAPO", SIMPLE_RL: "SimpleRL", HIGH_KL: "high-KL boost", LOW_KL: "low-KL boost", "SFT": "SFT"}
"""The publication's names of the arms."""

ALONG = "rl"
"""The responses along which the publication measures: those of the model after RL."""

CHARACTERISATION = {
    NEAR_ZERO_CLAIM.text: "Sparsity",
    **dict.fromkeys(POSITION_CLAIMS.values(), "Position"),
    **{claim.text: "Entropy" for claim in ENTROPY_CLAIMS},
    FREQUENT_LOW[0]: "Identity",
}
"""Statements of section 2 -> what they are about."""

MECHANICS = {
    OVERLAP_CLAIM.text: "Top-k overlap",
    OVERLAP_RISES[0]: "Top-k overlap",
    CANDIDATE_CLAIMS[0].text: "Rank under base",
    CANDIDATE_CLAIMS[1].text: "Rank under base",
    CANDIDATE_CLAIMS[2].text: "Improbable tokens",
}
"""Statements of section 4 -> what they are about."""

OF_ARM: dict[tuple[str, str], tuple[str, dict[str, float]]] = {
    (SIMPLE_RL, NEAR_ZERO_CLAIM.text): ("> 98 %", {"above": 0.98}),
    (SIMPLE_RL, CANDIDATE_CLAIMS[1].text): ("> 90 %", {"above": 0.9}),
    (SIMPLE_RL, CANDIDATE_CLAIMS[0].text): ("about 30 %", {}),
    (SIMPLE_RL, CANDIDATE_CLAIMS[2].text): ("about 0 %", {}),
    (DAPO, CANDIDATE_CLAIMS[2].text): ("about 5 %", {}),
}
"""Published figures that belong to one arm, and the limits of its verdict where they are not the statement's."""

PUBLISHED_ACCURACY = {
    DAPO: ("33.61", "18.75", "75.08", "42.48 ± 1.35"),
    LOW_KL: ("35.90", "19.90", "78.97", "44.92 ± 0.05"),
    HIGH_KL: ("36.74", "20.00", "78.40", "45.05 ± 0.79"),
}
"""Mean@32 on AIME24, AIME25 and AMC, and their mean, of Qwen2.5-Math-7B over 3 runs, by arm."""


PUBLISHED_CROSS = {
    DAPO: {
        "AIME24": {"forward": "8.23 to > 44 of 44.8 by 7.8 %", "backward": "44.8 to < 8.5 of 8.23 by 10.1 %"},
        "AIME25": {"forward": "5 to > 33 of 32 by 6.47 %", "backward": "32 to < 4.5 of 5 by 9.89 %"},
    },
    SIMPLE_RL: {
        "AIME24": {"forward": "8.23 to > 25 of 25.52 by 3.86 %", "backward": "25.52 to < 8.3 of 8.23 by 5 %"},
        "AIME25": {"forward": "5.3 to > 14 of 12.71 by 1.53 %", "backward": "12.71 to < 4 of 5.3 by 4.73 %"},
    },
}
"""Accuracies from and to, and effective replacements, of Qwen2.5-32B, by arm, benchmark and direction. Beside another
benchmark stand those of AIME24."""

SECOND_BY = {"js": "full JS", "js_top_p": "truncated JS", None: ""}
"""Measure of the second columns -> its name on the page."""


@dataclass(frozen=True)
class Row:
    """One statement beside the publication's figure.

    Attributes:
        id: Names the statement, the same in every reproduction.
        section: The publication's section, 2 to 5.
        row: What the statement is about.
        arm: The arm that it is about.
        statement: The statement.
        published: The published figure.
        measured: Ours in words, with its 95 % interval.
        verdict: `seen`, `not seen` or `open`, the last also with a reason behind it.
        problems: The number of problems.
        seeds: The seeds of the trainings.
        estimate: `value`, `low` and `high` of the number that decides; None where there is no single one.
        second: Ours by another measure or setting; empty where there is none.
        second_verdict: The verdict by it.
        second_by: The name of that other measure or setting.
        parts: The names of the parts that made it.
    """

    id: str
    section: int
    row: str
    arm: str
    statement: str
    published: str
    measured: str
    verdict: str
    problems: int | None
    seeds: Sequence[int]
    estimate: Mapping[str, Any] | None = None
    second: str = ""
    second_verdict: str = ""
    second_by: str = ""
    parts: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """The row, ready for JSON; of its estimate the number and its interval."""
        row = asdict(self)
        if self.estimate is not None:
            row["estimate"] = {name: self.estimate[name] for name in ("value", "low", "high")}
        return row


def done_parts(parts: Sequence[Part], kind: str) -> list[Part]:
    """The parts of a kind that have ended."""
    return [part for part in parts if part.kind == kind and part.state == "done"]


def every_row(parts: Sequence[Part], seeds: Sequence[int]) -> list[Row]:
    """The rows of all parts that have ended, in the publication's order."""
    rows: list[Row] = []
    shifts = done_parts(parts, SHIFT)
    for part in shifts:
        rows += shift_rows(read_json(part.product), seeds, part.name)
    if len(shifts) > 1:
        rows = [row for row in rows if row.measured != NO_SUCH_RUNS] + density_rows(shifts, seeds)
    for (arm, benchmark), of_both in cross_parts(parts).items():
        rows += cross_rows(cross_by_draws(of_both), of_both, arm, benchmark)
    rows += evolution_rows(done_parts(parts, EVOLUTION))
    for part in done_parts(parts, TRAININGS):
        rows += comparison_rows(read_json(part.product), seeds, part.name)
    return sorted(rows, key=lambda row: row.section)


# Sections 2 and 4 ------------------------------------------------------------------------------------------------


def shift_rows(runs: Mapping[str, Any], seeds: Sequence[int], part: str) -> list[Row]:
    """The rows of `runs.json`."""
    kind = runs["kinds"][ALONG]
    second_by = SECOND_BY[runs["second"]]
    rows = []
    for statement_rows, section in ((CHARACTERISATION, 2), (MECHANICS, 4)):
        for arm in runs["groups"]:
            for entry in kind["groups"][arm]["statements"]:
                if entry["text"] in statement_rows:
                    name = statement_rows[entry["text"]]
                    base = _shift_row(entry, section, name, ARM_NAMES.get(arm, arm), kind["problems"], seeds, part)
                    rows.append(_of_arm(replace(base, second_by=second_by), arm, entry))
        if section == 2:
            for entry in kind["comparisons"]:
                first, second = (ARM_NAMES.get(name, name) for name in entry["groups"])
                arm = f"{first} and {second}"
                base = _shift_row(entry, section, "Sparsity", arm, kind["problems"], seeds, part)
                rows.append(replace(base, second_by=second_by))
    return rows


def _shift_row(
    entry: Mapping[str, Any], section: int, row: str, arm: str, problems: int, seeds: Sequence[int], part: str
) -> Row:
    return Row(
        id=f"{section} / {row} / {arm} / {entry['text']}",
        section=section,
        row=row,
        arm=arm,
        statement=entry["text"],
        published=entry["published"],
        measured=entry["measured"],
        verdict=entry["verdict"],
        problems=problems,
        seeds=seeds,
        estimate=entry["estimate"],
        second=entry.get("second") or "",
        second_verdict=entry.get("second_verdict") or "",
        parts=[part],
    )


def _of_arm(row: Row, arm: str, entry: Mapping[str, Any]) -> Row:
    """The row with the figure that is published for this arm, and judged by it."""
    published, limits = OF_ARM.get((arm, row.statement), (row.published, {}))
    row = replace(row, published=published)
    if not limits:
        return row
    verdict = of_runs(within(entry["estimate"], **limits), len(row.seeds))
    return replace(row, statement=f"{row.statement}: {published}", verdict=verdict, second_verdict="")


def density_rows(parts: Sequence[Part], seeds: Sequence[int]) -> list[Row]:
    """The rows on which arm's shifts are denser, of arms that were asked by prompts of their own, each in its part."""
    runs = {part.name: read_json(part.product) for part in parts}
    measure = runs[parts[0].name]["measure"]
    groups: dict[str, list[Run]] = {}
    for part in parts:
        for given in part.settings["rl_model"]:
            arm, _, model = given.partition("=")
            folder = RunFolder(part.folder / "runs" / file_name(model))
            groups.setdefault(arm, []).append(run_of_folder(folder, model, measure))
    second_by = SECOND_BY[runs[parts[0].name]["second"]]
    rows = []
    apart = {arm: part.name for part in parts for arm in part.arms}
    for entry in compared_across_prompts(groups, ALONG, measure=measure):
        first, second = entry["groups"]
        if apart.get(first) != apart.get(second):  # the others are in their part's runs.json
            arm = f"{ARM_NAMES.get(first, first)} and {ARM_NAMES.get(second, second)}"
            problems = runs[parts[0].name]["kinds"][ALONG]["problems"]
            row = _shift_row(entry, 2, "Sparsity", arm, problems, seeds, apart[first])
            names = [apart[first], apart[second]]
            rows.append(
                replace(row, second_by=second_by, parts=names, measured=f"{row.measured}; each by its own prompt")
            )
    return rows


# Section 3 -------------------------------------------------------------------------------------------------------


def cross_parts(parts: Sequence[Part]) -> dict[tuple[str, str], list[Part]]:
    """The cross-samplings that have ended, by arm and benchmark, in the scale's order."""
    groups: dict[tuple[str, str], list[Part]] = {}
    for part in done_parts(parts, CROSS):
        groups.setdefault((part.arms[0], part.benchmark), []).append(part)
    return groups


def cross_label(arm: str, benchmark: str) -> str:
    """An arm, and the benchmark where the scale names one, such as `DAPO, AIME24`."""
    return ", ".join(filter(None, (ARM_NAMES.get(arm, arm), benchmark)))


def cross_by_draws(parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """`cross_runs_summary` over the seeds whose cross-sampling has ended, of one arm and benchmark, by the setting of
    the draws; the publication's first. Each has the `seeds` too."""
    summaries: dict[str, dict[str, Any]] = {}
    done = done_parts(parts, CROSS)
    for draws in sorted({part.settings["draws"] for part in done}):
        of_draws = [part for part in done if part.settings["draws"] == draws]
        tables = [pq.read_table(part.folder / "cells", columns=list(COLUMNS)) for part in of_draws]
        criteria = of_draws[0].settings["criteria"]
        summaries[draws] = {
            **cross_runs_summary(tables, criterion=criteria[0], control=criteria[-1]),
            "seeds": [part.seed for part in of_draws],
        }
    return summaries


def cross_rows(
    summaries: Mapping[str, Mapping[str, Any]], parts: Sequence[Part], arm: str, benchmark: str
) -> list[Row]:
    """The rows of the cross-samplings of one arm and benchmark: the first setting of the draws decides, another stands
    beside it."""
    (draws, first), *others = summaries.items()
    label = cross_label(arm, benchmark)
    published = PUBLISHED_CROSS.get(arm, {})
    figures = published.get(benchmark) or published.get("AIME24", {})
    names = {name: [part.name for part in parts if part.settings["draws"] == name] for name in summaries}
    rows = []
    for index, entry in enumerate(first["statements"]):
        row = "Sufficiency" if entry["direction"] == "forward" else "Necessity"
        if entry["key"] == "targeted":
            row = f"Control, {entry['direction']}"
        base = Row(
            id=f"3 / {row} / {label} / {entry['text']}",
            section=3,
            row=row,
            arm=label,
            statement=entry["text"],
            published=figures.get(entry["direction"], "-") if entry["key"] == "restores" else entry["published"],
            measured=entry["measured"],
            verdict=entry["verdict"],
            problems=first["problems"],
            seeds=first["seeds"],
            estimate=entry["estimate"],
            parts=names[draws],
        )
        for other, summary in others[:1]:
            beside = summary["statements"][index]
            base = replace(
                base, second=beside["measured"], second_verdict=beside["verdict"], second_by=f"{other} draws"
            )
        rows.append(base)
    mixture = {
        name: [
            (part.seed, read_json(part.product)["statements"][0]) for part in parts if part.settings["draws"] == name
        ]
        for name in summaries
    }
    can_beat = _of_each_seed(3, "Mixture", label, mixture[draws], first["problems"], names[draws])
    for other, _ in others[:1]:
        beside = _of_each_seed(3, "Mixture", label, mixture[other], first["problems"], names[other])
        can_beat = replace(can_beat, second=beside.measured, second_verdict=beside.verdict, second_by=f"{other} draws")
    return [*rows, can_beat]


def _of_each_seed(
    section: int,
    row: str,
    arm: str,
    entries: Sequence[tuple[Any, Mapping[str, Any]]],
    problems: int | None,
    parts: Sequence[str],
) -> Row:
    """The row of a statement that each seed has a verdict of its own on: the one that all have."""
    text = entries[0][1]["text"]
    return Row(
        id=f"{section} / {row} / {arm} / {text}",
        section=section,
        row=row,
        arm=arm,
        statement=text,
        published=entries[0][1]["published"],
        measured="; ".join(f"seed {seed}: {entry['measured']} ({_bare(entry['verdict'])})" for seed, entry in entries),
        verdict=agreed([entry["verdict"] for _, entry in entries]),
        problems=problems,
        seeds=[seed for seed, _ in entries],
        parts=parts,
    )


def _bare(verdict: str) -> str:
    return next(word for word in (NOT_SEEN, SEEN, OPEN) if verdict.startswith(word))


# Section 4, over training ----------------------------------------------------------------------------------------


def evolution_rows(parts: Sequence[Part]) -> list[Row]:
    """The rows of the evolutions: each seed's verdict by its own checkpoints, and the one that all have."""
    judged = [(part.seed, evolution_statements(read_json(part.product))) for part in parts]
    if not judged:
        return []
    rows = []
    for index in range(min(len(statements) for _, statements in judged)):
        entries = [(seed, asdict(statements[index])) for seed, statements in judged]
        problems = parts[0].settings.get("size")
        row = _of_each_seed(4, "Evolution", ARM_NAMES[DAPO], entries, problems, [part.name for part in parts])
        if all(entry["second_verdict"] for _, entry in entries):
            row = replace(
                row,
                second="; ".join(f"seed {seed}: {entry['second']}" for seed, entry in entries),
                second_verdict=agreed([entry["second_verdict"] for _, entry in entries]),
                second_by="full JS",
            )
        rows.append(row)
    return rows


# Section 5 -------------------------------------------------------------------------------------------------------


def comparison_rows(comparison: Mapping[str, Any], seeds: Sequence[int], part: str) -> list[Row]:
    """The rows of `comparison.json`: the two boosts beside DAPO, by the outcome that decides and by accuracy."""
    variants = {row["variant"]: row for row in comparison["variants"]}
    verdicts = {entry["variant"]: entry for entry in comparison["verdicts"]}
    outcome = OUTCOMES[comparison["outcome"]["name"]]
    problems = sum(comparison["sets"].values())
    rows = []
    for arm in (LOW_KL, HIGH_KL):
        if arm not in verdicts or verdicts[arm]["discovery"] is None:
            continue
        published = f"{PUBLISHED_ACCURACY[arm][-1]} against {PUBLISHED_ACCURACY[DAPO][-1]}"
        difference, entry = verdicts[arm]["discovery"], variants[arm]
        verdict = {HIGHER: SEEN, LOWER: NOT_SEEN}.get(verdicts[arm]["verdict"], OPEN)
        accuracy = entry["accuracy"]["difference"]
        by_accuracy = OPEN if accuracy["p_holm"] is None or accuracy["p_holm"] > 0.05 else SEEN
        if by_accuracy == SEEN and accuracy["difference"] < 0:
            by_accuracy = NOT_SEEN
        rows.append(
            Row(
                id=f"5 / Accuracy / {ARM_NAMES[arm]} / The boost beats DAPO",
                section=5,
                row="Accuracy",
                arm=ARM_NAMES[arm],
                statement=f"The {ARM_NAMES[arm]} beats DAPO",
                published=published,
                measured=f"{outcome.words}: {_points(difference)}",
                verdict=of_runs(verdict, difference["seeds"]),
                problems=problems,
                seeds=seeds,
                estimate={"value": difference["difference"], "low": difference["low"], "high": difference["high"]},
                second=f"accuracy {spread_text(entry['accuracy'], scale=PERCENT, digits='.2f')} against "
                f"{spread_text(variants[DAPO]['accuracy'], scale=PERCENT, digits='.2f')}: {_points(accuracy)}",
                second_verdict=of_runs(by_accuracy, accuracy["seeds"]),
                second_by="final accuracy",
                parts=[part],
            )
        )
    return rows


def _points(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval and p-value, marked where so few seeds make it approximate."""
    text = interval_text(difference, key="difference", scale=PERCENT, digits="+.2f", unit=" points")
    if difference.get("coverage") is not None:
        text = text.replace("[", "[≈ ")
    return f"{text}, p {number_text(difference['p_holm'], digits='.3f')}"
