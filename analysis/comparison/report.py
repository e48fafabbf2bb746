"""The files of a comparison: `comparison.html`, `.csv` (one row per trained model), `.json`, `.md` and `figures/`."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.conclusions import comparison_conclusions
from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS, PAIRS, trials_of
from tokenshift.analysis.comparison.figures import CAPTIONS, variant_figures
from tokenshift.analysis.comparison.outcomes import AREAS, FINAL_ACCURACY, OUTCOMES, Outcome
from tokenshift.analysis.comparison.results import (
    FIXED_TRAJECTORIES,
    OWN_TRAJECTORIES,
    SHIFT,
    CellResult,
)
from tokenshift.analysis.comparison.verdicts import DISCOVERY, NO_INTERVAL, NOT_SHOWN, REPLICATION
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text, spread_text
from tokenshift.analysis.report.page import Section, report_facts, saved_figures, write_report
from tokenshift.analysis.sampling.correctness import correctness_words, none_correct_remark
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import CORRECT, NEAR_ZERO
from tokenshift.analysis.token_table.measure import SHIFT_MEASURES, TRUNCATED_JS, measure_name

WRITTEN = ("comparison.html", "comparison.md", "comparison.csv", "comparison.json", "figures")
"""The files and the folder that `write_comparison` writes."""

COMPARISON_METHOD = """Accuracies are in %: mean ± standard deviation (n - 1) over seeds{sets}. Each difference is to \
{baseline}, over the seeds that both have, with a 95 % interval and a two-sided p-value, corrected by Holm's \
method for the number of variants. Seeds and problems count as samples, crossed: the variance of a mean difference \
is (MS_seed + MS_problem - MS_error) / (S P) of the two-way analysis of variance without replication (MS_error in \
place of a smaller sum), with Satterthwaite's degrees of freedom, so intervals speak of other seeds and other \
problems. "Minimum detectable" is the smallest true difference that this many seeds and problems find with a power \
of 80 % at a level of 5 %, not corrected for the number of variants."""

OUTCOME_METHOD = """{definition} In %: mean ± standard deviation (n - 1) over seeds. Differences to {baseline} are \
paired by seed, with 95 % intervals of Student's t over seeds; p and "minimum detectable" as for accuracies."""

NEVER_POOLED = """The discovery seeds and the replication seeds are tested apart and never pooled; the verdict is \
that of the {deciding} seeds."""

MOVED_TEXT = """{measure} between the model before and after training, in nats, per token, of the final probe's own \
responses{truncated}; near zero: JS < {near_zero:g}, this project's value. Differences to {baseline} are paired by \
seed, with 95 % intervals of Student's t over seeds; p as above, for each column by itself.{second}{recovery}"""

TRUNCATED_TEXT = """, the distributions truncated to `probe_top_p`, as published"""

SECOND_TEXT = """ The columns of {second} are the same by the other measure."""

RECOVERY_TEXT = """ Recovery: the share of the gain in accuracy over the model before training that comes back \
when it decodes and the trained model draws the token where `{criterion}` is highest, at {budget:.3g} % of tokens \
(wanted on a pilot); empty where the criterion cannot meet that."""


def _spread(entry: Mapping[str, Any], scale: float = PERCENT, digits: str = ".2f") -> str:
    return spread_text(entry, scale=scale, digits=digits)


def _difference(entry: Mapping[str, Any], scale: float = PERCENT, digits: str = ".2f") -> str:
    return _difference_text(entry["difference"], scale, digits)


def _difference_text(difference: Mapping[str, Any] | None, scale: float = PERCENT, digits: str = ".2f") -> str:
    """A difference with its interval, which begins with ≈ where it is approximate."""
    text = interval_text(difference, key="difference", scale=scale, digits=f"+{digits}")
    approximate = difference is not None and difference.get("coverage") is not None
    return text.replace("[", "[≈ ") if approximate else text


def _p_value(entry: Mapping[str, Any]) -> str:
    return _p_text(entry["difference"])


def _p_text(difference: Mapping[str, Any] | None) -> str:
    p_value = (difference or {}).get("p_holm")
    return "< 0.001" if p_value is not None and p_value < 0.001 else number_text(p_value, digits=".3f")


def _detectable(entry: Mapping[str, Any]) -> str:
    return number_text((entry["difference"] or {}).get("detectable"), scale=PERCENT, digits=".2f")


def accuracy_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table in the publication's form, with tests of the differences to the baseline: header and rows."""
    sets = list(summary["sets"])
    several = len(sets) > 1
    columns = [*sets, "mean"] if several else [f"{name}, accuracy" for name in sets]
    header = ["variant", *columns, f"difference to {summary['baseline']}", "p (Holm)", "minimum detectable"]
    graded = summary.get("reward_range") is not None
    header += ["mean reward", "difference", "p (Holm)", "seeds"] if graded else ["seeds"]
    rows = []
    for row in summary["variants"]:
        values = [_spread(row["sets"][name]) for name in sets]
        if several:
            values.append(_spread(row["accuracy"]))
        accuracy = row["accuracy"]
        tests = [_difference(accuracy), _p_value(accuracy), _detectable(accuracy)]
        if graded:
            reward = row["reward"]
            tests += [_spread(reward, 1, ".3f"), _difference(reward, 1, ".3f"), _p_value(reward)]
        rows.append([row["variant"], *values, *tests, str(len(row["seeds"]))])
    return header, rows


def outcome_table(summary: Mapping[str, Any], name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of an area, one row per variant, with the replication beside the discovery.

    Args:
        summary: As for `write_comparison`.
        name: The outcome, a name of `OUTCOMES`.
    """
    key, replication = OUTCOMES[name].key, summary.get("replication")
    tests = [f"difference to {summary['baseline']}", "p (Holm)", "minimum detectable", "seeds"]
    header = ["variant", OUTCOMES[name].words, *tests]
    header += [f"replication: {words}" for words in (OUTCOMES[name].words, *tests)] if replication else []
    replicated = {row["variant"]: row for row in replication["variants"]} if replication else {}
    rows = []
    for row in summary["variants"]:
        cells = [row["variant"]]
        for of_seeds in (row, replicated.get(row["variant"])):
            if of_seeds is not None:
                entry, count = of_seeds[key], len(of_seeds["seeds"])
                cells += [_spread(entry), _difference(entry), _p_value(entry), _detectable(entry), str(count)]
        rows.append(cells)
    return header, rows


def dose_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of doses, one row per weighting and dose."""
    key = OUTCOMES[summary["outcome"]["name"]].key
    sets = {DISCOVERY: summary["variants"]}
    if summary.get("replication"):
        sets[REPLICATION] = summary["replication"]["variants"]
    header = ["weighting", "axis", "dose", "variant"]
    for seeds in sets:
        prefix = "" if len(sets) == 1 else f"{seeds}: "
        header += [f"{prefix}outcome", f"{prefix}difference to {summary['baseline']}"]
    entries = {seeds: {row["variant"]: row[key] for row in rows} for seeds, rows in sets.items()}
    rows = []
    for axis in summary["doses"]:
        for variant in sorted(axis["doses"], key=axis["doses"].get):
            cells = [axis["of"], axis["axis"], f"{axis['doses'][variant]:g}", variant]
            for of_seeds in entries.values():
                cells += [_spread(of_seeds[variant]), _difference(of_seeds[variant])]
            rows.append(cells)
    return header, rows


def verdict_lines(summary: Mapping[str, Any]) -> list[str]:
    """One line per variant: what its outcome is beside the baseline's, by which seeds."""
    baseline, lines = summary["baseline"], []
    for verdict in summary["verdicts"]:
        seeds = verdict["seeds"]
        difference = verdict[seeds]
        words = f"{verdict['verdict']} than {baseline}"
        if verdict["verdict"] in (NOT_SHOWN, NO_INTERVAL):
            words = f"a difference to {baseline} is not shown" if verdict["verdict"] == NOT_SHOWN else NO_INTERVAL
        line = f"{verdict['variant']}: {words} ({_difference_text(difference)}, p {_p_text(difference)}"
        if seeds == REPLICATION:
            line += f", replication seeds; discovery seeds: {_difference_text(verdict[DISCOVERY])}"
        lines.append(f"{line})")
    return lines


def coverage_lines(summary: Mapping[str, Any]) -> list[str]:
    """Lines on how often intervals that are marked as approximate hold the true difference."""
    lines = []
    for name in dict.fromkeys((summary["outcome"]["name"], FINAL_ACCURACY)):
        outcome = OUTCOMES[name]
        rows = [*summary["variants"], *(summary.get("replication") or {"variants": []})["variants"]]
        differences = [row[outcome.key]["difference"] or {} for row in rows]
        marked = {entry["seeds"]: entry["coverage"] for entry in differences if entry.get("coverage") is not None}
        for seeds, coverage in sorted(marked.items()):
            lines.append(
                f"≈ marks an approximate interval: with {seeds} seeds, 95 % intervals of the {outcome.words} held the "
                f"true difference in {100 * coverage:.1f} % of {trials_of(seeds):,} simulated comparisons with seeds "
                f"that jump and sag as pocket's do, in the worst of {len(PAIRS)} cases; "
                f"{ENOUGH_SEEDS[outcome.averages_training]} seeds hold it in 94 %."
            )
    return lines


def moved_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of what training moved, one row per variant."""
    measure, second = summary["measure"], _second_measure(summary)
    fine = {"p50": ".1e", "p90": ".1e", "p95": ".4f", "p99": ".4f"}
    with_recovery = any(row["recovery"]["value"] is not None for row in summary["variants"])
    header = ["variant", "near zero, %", "difference", "p (Holm)"]
    header += [f"JS {name}" for name in fine] + ["p99, difference", "p (Holm)"]
    header += [f"{measure_name(second)}: near zero, %", f"{measure_name(second)}: p99"] if second is not None else []
    header += ["recovery, %", "difference", "p (Holm)"] if with_recovery else []
    rows = []
    for row in summary["variants"]:
        near, tail = row[f"{measure}_frac_near_zero"], row[f"{measure}_p99"]
        cells = [row["variant"], _spread(near), _difference(near), _p_value(near)]
        cells += [_spread(row[f"{measure}_{name}"], 1, digits) for name, digits in fine.items()]
        cells += [_difference(tail, 1, ".4f"), _p_value(tail)]
        if second is not None:
            cells += [_spread(row[f"{second}_frac_near_zero"]), _spread(row[f"{second}_p99"], 1, ".4f")]
        if with_recovery:
            cells += [_spread(row["recovery"], digits=".1f"), _difference(row["recovery"], digits=".1f")]
            cells.append(_p_value(row["recovery"]))
        rows.append(cells)
    return header, rows


def _second_measure(summary: Mapping[str, Any]) -> str | None:
    """The measure that stands beside the first one; None where the probes do not have it."""
    second = next(name for name in SHIFT_MEASURES if name != summary["measure"])
    return second if any(row[f"{second}_p99"]["value"] is not None for row in summary["variants"]) else None


def correctness_rule(summary: Mapping[str, Any]) -> str | None:
    """The rule by which responses count as correct; None where each reward is 0 or 1 and 1 is correct."""
    threshold = float(summary["evaluation"].get("correct_threshold", CORRECT))
    if threshold == CORRECT and summary.get("reward_range") is None:
        return None
    reward = summary["evaluation"].get("reward_func", "accuracy_reward")
    return correctness_words({"reward": reward, "correct_threshold": threshold})


def _none_correct(summary: Mapping[str, Any]) -> str | None:
    """The remark that the rewards never reach the threshold; None where they do, or are 0 and 1."""
    ends = summary.get("reward_range")
    threshold = float(summary["evaluation"].get("correct_threshold", CORRECT))
    return None if ends is None else none_correct_remark(ends, threshold)


def remarks(summary: Mapping[str, Any], failures: Mapping[str, str]) -> list[str]:
    """Notes on these numbers, one per line: which responses count as correct, failed cells, unjudged problems, ..."""
    lines = []
    if rule := correctness_rule(summary):
        lines.append(f"Accuracy is the share of responses with {rule}.")
    if none_correct := _none_correct(summary):
        lines.append(none_correct)
    if len(summary["seeds"]) == 1:
        lines.append(
            "One seed: there is no interval and no p-value, since nothing tells how much another seed would change; "
            "add seeds."
        )
    every_row = [*summary["variants"], *(summary.get("replication") or {"variants": []})["variants"]]
    evaluated = {f"{row['variant']}-seed{seed}" for row in every_row for seed in row["seeds"]}
    for words, names in (
        ("failed, and the table is without them", [name for name in failures if name not in evaluated]),
        ("failed in what follows their evaluation", [name for name in failures if name in evaluated]),
    ):
        if names:
            lines.append(f"{len(names)} cell{'s' * (len(names) != 1)} {words}:")
            lines += [f"- {name}, {failures[name]}" for name in names]
    floored = [row["variant"] for row in summary["variants"] if (row["accuracy"]["difference"] or {}).get("floored")]
    if floored:
        lines.append(f"MS_error took the place of the sum of mean squares for: {', '.join(floored)}.")
    for name, count in summary["unjudged"].items():
        if count:
            lines.append(f"{count} problems of {name} are left out: some model has no verdict on them.")
    undefined = [
        row["variant"]
        for row in summary["variants"]
        if row["recovery"]["value"] is None
        and any(f"{row['variant']}-seed{seed}" not in failures for seed in row["seeds"])
    ]
    if summary["recovery"] is not None and undefined:
        lines.append(f"Recovery is not defined for {', '.join(undefined)}: no gain in accuracy to recover.")
    outcome = summary["outcome"]
    if outcome["name"] != outcome["asked"]:
        lines.append(_without_outcome(outcome))
    elif outcome["name"] in AREAS and len(outcome["updates"]) > 1:
        ends = ", ".join(map(str, outcome["updates"]))
        lines.append(f"The trainings have different numbers of updates ({ends}); each area is over its own training.")
    return lines + coverage_lines(summary)


def _without_outcome(outcome: Mapping[str, Any]) -> str:
    """The line for an outcome that was asked for and that the models do not have."""
    words = OUTCOMES[outcome["asked"]].words
    if outcome["asked"] == "learning_area" and len(outcome["rewards"]) > 1:
        reason = f"the trainings' rewards differ ({', '.join(outcome['rewards'])})"
    elif outcome["asked"] == "learning_area":
        reason = "no training logged a reward"
    else:
        reason = "no training has three probes or more"
    return f"The outcome is the final accuracy, since there is no {words}: {reason}."


def comparison_markdown(summary: Mapping[str, Any], failures: Mapping[str, str]) -> str:
    """The text of `comparison.md`.

    Args:
        summary: As for `write_comparison`.
        failures: Why each cell that failed did, by its name.
    """
    parts = [f"# Comparison: {summary['name']}\n", *(f"{paragraph}\n" for paragraph in _head(summary))]
    if summary["verdicts"]:
        parts.append("\n".join(f"- {line}" for line in verdict_lines(summary)) + "\n")
    for section in comparison_sections(summary, failures):
        parts.append(f"## {section.title}\n")
        parts += [f"{section.text}\n"] if section.text else []
        parts += [markdown_table(*section.table)] if section.table is not None else []
    return "\n".join(parts)


def _head(summary: Mapping[str, Any]) -> list[str]:
    """Paragraphs on what was compared."""
    sets = ", ".join(f"{count:,} problems of {name}" for name, count in summary["sets"].items())
    evaluation = ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in summary["evaluation"].items())
    seeds = ", ".join(map(str, summary["seeds"]))
    replication, name = summary.get("replication"), summary["outcome"]["name"]
    if replication is not None:
        seeds += f", replication seeds {', '.join(map(str, replication['seeds']))}"
    return [
        f"{len(summary['variants'])} variants, seeds {seeds}; {sets or 'no problems'}; evaluation: {evaluation}.",
        f"The outcome is the {OUTCOMES[name].words} (`outcome: {name}`).",
        *([NEVER_POOLED.format(deciding=REPLICATION)] if replication is not None else []),
    ]


def comparison_sections(summary: Mapping[str, Any], failures: Mapping[str, str]) -> list[Section]:
    """The parts of a comparison's pages: their titles, texts and tables.

    Args:
        summary: As for `write_comparison`.
        failures: Why each cell that failed did, by its name.
    """
    baseline, name = summary["baseline"], summary["outcome"]["name"]
    words, replication = OUTCOMES[name].words.capitalize(), summary.get("replication")
    several = "; their mean counts each set alike (macro average)" if len(summary["sets"]) > 1 else ""
    sections = []
    if name != FINAL_ACCURACY:
        method = OUTCOME_METHOD.format(definition=_definition(summary, OUTCOMES[name]), baseline=baseline)
        sections.append(Section(words, method, outcome_table(summary, name)))
    if summary.get("doses"):
        sections.append(Section("Dose", f"{words}, in %.", dose_table(summary)))
    method = COMPARISON_METHOD.format(sets=several, baseline=baseline)
    sections.append(Section("Accuracy", method, accuracy_table(summary)))
    replicated = None if replication is None else {**summary, **replication}
    if replicated is not None:
        sections.append(Section("Accuracy, replication seeds", table=accuracy_table(replicated)))
    if any(row[f"{summary['measure']}_p99"]["value"] is not None for row in summary["variants"]):
        sections.append(Section("What moved", _moved_text(summary), moved_table(summary)))
        if replicated is not None:
            sections.append(Section("What moved, replication seeds", table=moved_table(replicated)))
    if notes := remarks(summary, failures):
        sections.append(Section("Remarks", "\n\n".join(notes)))
    header = ("variant", f"set otherwise than {baseline}")
    return [*sections, Section("Variants", table=(header, _settings(summary)))]


def _moved_text(summary: Mapping[str, Any]) -> str:
    measure, second, recovery = summary["measure"], _second_measure(summary), summary["recovery"]
    words = ""
    if recovery is not None:
        words = RECOVERY_TEXT.format(budget=100 * recovery["budgets"][0], criterion=recovery["criteria"][0])
    return MOVED_TEXT.format(
        measure=measure_name(measure)[0].upper() + measure_name(measure)[1:],
        truncated=TRUNCATED_TEXT if measure == TRUNCATED_JS else "",
        near_zero=NEAR_ZERO,
        baseline=summary["baseline"],
        second="" if second is None else SECOND_TEXT.format(second=measure_name(second)),
        recovery=words,
    )


def _definition(summary: Mapping[str, Any], outcome: Outcome) -> str:
    rewards = summary["outcome"]["rewards"]
    reward = " and ".join(f"`{name}`" for name in rewards) or "the reward"
    return outcome.definition.format(reward=reward, level=_level(summary.get("reward_levels", {})))


def _level(levels: Mapping[str, Sequence[float] | None]) -> str:
    """Words for what one logged value of the learning curve measures."""
    known = [tuple(pair) for pair in levels.values() if pair is not None]
    if not known:
        return "the mean reward"
    pairs = " or ".join(f"{right:g} and not {wrong:g}" for wrong, right in dict.fromkeys(known))
    return f"the share with a reward of {pairs}"


def _settings(summary: Mapping[str, Any]) -> list[list[str]]:
    return [
        [name, ", ".join(f"{key}: {_text(value)}" for key, value in settings.items())]
        for name, settings in summary["distinguishing"].items()
    ]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def comparison_csv(summary: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """The text of `comparison.csv`: one row per trained model, shares as fractions, JS in nats."""
    sets, variants = list(summary["sets"]), {row["variant"]: row for row in summary["variants"]}
    kinds = (OWN_TRAJECTORIES, FIXED_TRAJECTORIES)
    shift = [(kind, f"{measure}_{name}") for measure in reversed(SHIFT_MEASURES) for kind in kinds for name in SHIFT]
    recovery = ["value", "low", "high", "intervened"]
    header = ["variant", "seed", "accuracy", *(f"accuracy_{name}" for name in sets)]
    header += [f"{kind}_{name}" for kind, name in shift]
    header += [f"recovery_{name}" for name in recovery]
    graded = summary.get("reward_range") is not None
    areas = [name for name in AREAS if any(OUTCOMES[name].key in row for row in summary["variants"])]
    replication = summary.get("replication")
    header += [*areas, *(["seed_set"] if replication is not None else []), *(["reward"] if graded else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    replicated = {row["variant"]: row for row in (replication or {"variants": []})["variants"]}
    for cell in results:
        of_discovery, seed = cell.seed in summary["seeds"], str(cell.seed)
        numbers = (variants if of_discovery else replicated)[cell.variant]
        row: list[Any] = [cell.variant, cell.seed, numbers["accuracy"]["by_seed"][seed]]
        row += [numbers["sets"].get(name, {"by_seed": {}})["by_seed"].get(seed) for name in sets]
        row += [cell.shift.get(kind, {}).get(name) for kind, name in shift]
        row += [(cell.recovery or {}).get(name) for name in recovery]
        row += [numbers[name]["by_seed"][seed] for name in areas]
        row += [DISCOVERY if of_discovery else REPLICATION] if replication is not None else []
        row += [numbers["reward"]["by_seed"][seed] if "reward" in numbers else None] if graded else []
        writer.writerow(row)
    return text.getvalue()


def write_comparison(
    folder: Path, summary: Mapping[str, Any], results: Sequence[CellResult], failures: Mapping[str, str]
) -> None:
    """Write all files.

    Args:
        folder: Where the files go.
        summary: The numbers of `comparison_summary`, with `name`, `evaluation`, `recovery`, `distinguishing` by
            variant, and `doses`, for each weighting with several of them its name `of`, the `axis`, and the dose by
            variant, `doses`.
        results: The results of the trained models.
        failures: Why each cell that failed did, by its name.
    """
    rule = correctness_rule(summary)
    if rule is not None:
        summary = {**summary, "correct": rule}
    write_whole(folder / "comparison.csv", comparison_csv(summary, results))
    record = {**summary, "failed": dict(failures)}
    write_whole(folder / "comparison.json", json.dumps(record, indent=1, default=str) + "\n")
    write_whole(folder / "comparison.md", comparison_markdown(summary, failures))
    drawn = variant_figures(summary, results) if results else {}
    figures = saved_figures(folder / "figures", {name: (figure, CAPTIONS[name]) for name, figure in drawn.items()})
    for name in CAPTIONS.keys() - drawn.keys():  # an earlier comparison's may be there
        for path in (folder / "figures").glob(f"{name}.*"):
            path.unlink()
    sections = comparison_sections(summary, failures)
    verdicts = [line.split(": ", 1) for line in verdict_lines(summary)]
    head = Section("Verdicts", "\n\n".join(_head(summary)), (("variant", "verdict"), verdicts) if verdicts else None)
    shown = [head, *([Section("Figures", figures=figures)] if figures else []), *sections]
    write_report(
        folder / "comparison.html",
        title=f"Comparison: {summary['name']}",
        facts=report_facts(summary["evaluation"]),
        conclusions=comparison_conclusions(summary),
        sections=[replace(section, text=section.text.replace("`", "")) for section in shown],  # Markdown's sign
        responses=[],
        token_text=str,
    )
