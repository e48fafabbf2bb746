"""The numbers, figures and page of a cross-sampling run, from what is on disk: no model is needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Any

from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.criteria import users_criteria_words
from tokenshift.analysis.cross_sampling.figures import AXES, accuracy_curves, areas, curve_name
from tokenshift.analysis.cross_sampling.pilot import THRESHOLDS_FILE, read_thresholds
from tokenshift.analysis.cross_sampling.recovery import COLUMNS, ENOUGH, recovery_summary
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_run import read_cells
from tokenshift.analysis.figures.style import save
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.page import Piece, Section, SideBySide, write_report
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole

SHOWN = 4
"""Responses side by side, a direction, whose verdict changed as it should; others are fewer."""

METHOD = """Both policies see the same mixed text. Where the criterion's score lies above epsilon, the intervention \
draws the token, else the primary does: forward, the base is the primary and RL intervenes; backward, the other way. \
Both draws share one random number, so it is known what the primary would itself have drawn: an intervention is \
effective if its token is another one. Shares are of all tokens of all responses, numbers (#) are means a response.

Recovery is the part of RL's gain in accuracy that is there (forward) or gone (backward): 0 % at the primary's own \
accuracy, 100 % at the intervention's. Brackets, bands and whiskers are 95 % bootstrap intervals, resampled by \
problem, with seeds and samples pooled.

The criteria: js, forward_kl = KL(primary‖intervention), reverse_kl = KL(intervention‖primary), the entropy of \
either, delta_logp = how much less probable the primary's draw is under the intervention (arXiv 2603.22117), random \
positions, position = the first tokens; none and all are the two models alone."""

AREA_TEXT = """Under straight lines from no recovery at no token, over the criterion's points by their share, to \
where every token is the intervention's: the larger, the fewer tokens are enough. Intervened shares are of all \
tokens; effective ones are relative to that of `all`, and count as 1 above it. A sibling study (arXiv 2603.22117) \
ranks delta_logp before KL before entropy before random.

The least that is enough is the point with the smallest share that recovers 90 %; a dash stands where none does."""

UNDEFINED = "Recovery is not defined here: the interval of RL's gain in accuracy does not lie above 0."


def percent(entry: Mapping[str, float] | None, bare: bool = False) -> str:
    """A share in per cent with its interval, or without; `-` for none."""
    if entry is None:
        return "-"
    value, low, high = (f"{100 * entry[name]:.3g}" for name in ("value", "low", "high"))
    return value if bare else f"{value} [{low}, {high}]"


def plain(entry: Mapping[str, float] | None) -> str:
    """A number with its interval; `-` for none."""
    if entry is None:
        return "-"
    return f"{entry['value']:.3g} [{entry['low']:.3g}, {entry['high']:.3g}]"


def write_cross_report(
    folder: RunFolder,
    cells: Sequence[SweptPolicy],
    tokenizer: PreTrainedTokenizerBase,
    metadata: Mapping[str, Any],
    *,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Write `cross.json`, `cross.md`, `figures/` and `report.html`.

    Args:
        folder: of the run.
        cells: those to report, all of which are there.
        tokenizer: the models'.
        metadata: what rows come from, with `prompts` by problem.
        resamples: of the bootstrap.

    Returns:
        `recovery_summary`'s numbers.
    """
    summary = recovery_summary(read_cells(folder, cells, COLUMNS), resamples)
    thresholds = {each.key: each for each in read_thresholds(folder)}
    record = json.loads(next(iter(table_metadata(metadata).values())))
    write_whole(folder.path / "cross.json", json.dumps({"metadata": record, **summary}, indent=1) + "\n")
    numbers, curves = _numbers(summary, str(metadata["dataset"])), _curves(summary)
    text = f"{markdown_table(*numbers)}\n" + (f"{markdown_table(*curves)}" if curves[1] else "")
    write_whole(folder.path / "cross.md", text + ("" if summary["defined"] else f"\n{UNDEFINED}\n"))

    models = f"{record['base_model']} to {record['rl_model']}"
    method = METHOD + users_criteria_words(cell.criterion for cell in cells)
    sections = [
        Section("How to read this", method if summary["defined"] else f"{method}\n\n{UNDEFINED}"),
        Section("Policies", "Shares, accuracies and recovery in %.", table=numbers),
    ]
    if curves[1]:
        sections.append(Section("Area under the recovery curve, and the least that is enough", AREA_TEXT, curves))
    for direction in DIRECTIONS:  # figures of one that is asked for no more
        for stale in (folder.path / "figures").glob(f"{direction}_*"):
            stale.unlink()
    for direction in dict.fromkeys(cell.direction for cell in cells):
        drawn = _figures(folder, summary, direction, f"{models}, {direction}")
        sections.append(Section(f"Figures, {direction}", figures=drawn))
    for direction in dict.fromkeys(cell.direction for cell in cells):
        section = _side_by_side(folder, summary, cells, direction, tokenizer, metadata["prompts"])
        if section is not None:
            sections.append(section)
    used = [thresholds[key] for cell in cells if (key := _key(cell)) in thresholds and cell.seed == cells[0].seed]
    if used:
        header = ("direction", "criterion", "gamma", "wanted, %", "epsilon", "on the pilot, %", "pilot's tokens")
        rows = [
            (
                each.direction,
                each.criterion,
                f"{each.gamma:g}",
                f"{100 * each.budget:g}",
                f"{each.epsilon:.4g}",
                f"{100 * each.share:.3g}",
                f"{each.tokens:,}",
            )
            for each in used
        ]
        words = f"Found on a pilot for wanted shares of intervened tokens; all that was tried is in {THRESHOLDS_FILE}."
        sections.append(Section("Thresholds", words, (header, rows)))
    write_report(
        folder.path / "report.html",
        title=f"Are those tokens the cause: {models}",
        facts=_facts(record, summary),
        sections=sections,
        responses=[],
        token_text=str,
    )
    return summary


def _key(cell: SweptPolicy) -> tuple[str, str, float, float]:
    return cell.direction, cell.criterion, cell.gamma, -1.0 if cell.budget is None else cell.budget


def _facts(record: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    hidden = ("prompts", "versions", "near_zero", "high", "seed")
    facts = {
        name.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in record.items()
        if name not in hidden and value is not None
    }
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    facts["n"] = f"{summary['problems']} problems, {summary['cells'][0]['responses']} responses a policy"
    facts["RL's gain in accuracy, %"] = percent(summary["levels"]["gain"])
    return facts


Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def _numbers(summary: Mapping[str, Any], name: str) -> Table:
    """The table of the publication's form, a row a policy."""
    header = [
        "set",
        "direction",
        "criterion",
        "epsilon",
        "intervened %",
        "effective %",
        "effective #",
        "length",
        "accuracy from",
        "to",
        "recovery %",
    ]
    rows = []
    gammas, caps = (any(cell[key] for cell in summary["cells"]) for key in ("gamma", "most"))
    for cell in summary["cells"]:
        start = summary["levels"]["base" if cell["direction"] == "forward" else "rl"]
        rows.append(
            [
                name,
                cell["direction"],
                cell["criterion"],
                *([f"{cell['gamma']:g}"] if gammas else []),
                *(["-" if cell["most"] is None else str(cell["most"])] if caps else []),
                "-" if cell["epsilon"] is None else f"{cell['epsilon']:.3g}",
                percent(cell["intervened"]),
                percent(cell["effective"]),
                plain(cell["effective_count"]),
                plain(cell["length"]),
                percent(start, bare=True),
                percent(cell["accuracy"]),
                percent(cell["recovery"]),
            ]
        )
    return [*header[:3], *["gamma"] * gammas, *["at most #"] * caps, *header[3:]], rows


def _curves(summary: Mapping[str, Any]) -> Table:
    """Areas, what sets them apart from js's, and the smallest shares that are enough; a row a curve."""
    reaching = f"recovers {ENOUGH:.0%} at"
    header = (
        "direction",
        "criterion",
        "area, intervened",
        "to js",
        "area, effective",
        "to js",
        f"{reaching} intervened %",
        f"{reaching} effective %",
    )
    rows = []
    for curve in summary["curves"]:
        enough = [
            "-" if place is None else percent(summary["cells"][place][name]) for name, place in curve["enough"].items()
        ]
        areas = ("area_intervened", "area_intervened_to_js", "area_effective", "area_effective_to_js")
        rows.append((curve["direction"], curve_name(curve), *(plain(curve[area]) for area in areas), *enough))
    return header, rows


def _figures(folder: RunFolder, summary: Mapping[str, Any], direction: str, title: str) -> list[tuple[str, str]]:
    drawn: dict[str, tuple[Figure, str]] = {}
    for against, (words, _factor) in AXES.items():
        caption = (
            f"Accuracy against {words}, from none to all; grey: base and RL alone. Whiskers and bands: 95 % intervals."
        )
        drawn[f"accuracy_{against}"] = (accuracy_curves(summary, direction, against, title), caption)
    if any(curve["direction"] == direction and curve["most"] is None for curve in summary["curves"]):
        caption = "Area under the recovery curve of each criterion, with 95 % intervals."
        drawn["areas"] = (areas(summary, direction, title), caption)
    found = []
    for name, (figure, caption) in drawn.items():
        path = save(figure, folder.path / "figures" / f"{direction}_{name}")
        found.append((path.with_suffix(".svg").read_text(encoding="utf-8"), caption))
    return found


def shown_policy(summary: Mapping[str, Any], direction: str) -> dict[str, Any] | None:
    """The policy whose responses are shown: of the first criterion's, the least effective that is enough, else the
    one that recovers most, or changes most; None if there are the ends alone."""
    curve = next((each for each in summary["curves"] if each["direction"] == direction), None)
    if curve is None:
        return None
    place = curve["enough"]["effective"]
    if place is not None:
        return dict(summary["cells"][place])
    own = [
        cell
        for cell in summary["cells"]
        if all(cell[name] == curve[name] for name in ("direction", "criterion", "gamma", "most"))
    ]
    sign = 1 if direction == "forward" else -1
    return dict(max(own, key=lambda cell: sign * (cell["accuracy"] or {"value": 0.0})["value"]))


def _side_by_side(
    folder: RunFolder,
    summary: Mapping[str, Any],
    cells: Sequence[SweptPolicy],
    direction: str,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[int, str],
) -> Section | None:
    policy = shown_policy(summary, direction)
    if policy is None:
        return None
    fields = ("direction", "criterion", "epsilon", "budget", "most", "gamma")
    cell = next(each for each in cells if all(getattr(each, name) == policy[name] for name in fields))
    alone = replace(SweptPolicy(direction, "none"), seed=cell.seed)
    before, after = (read_cells(folder, [each]).to_pylist() for each in (alone, cell))
    wanted = (False, True) if direction == "forward" else (True, False)
    pairs = list(zip(before, after, strict=True))
    changed = [pair for pair in pairs if (pair[0]["correct"], pair[1]["correct"]) == wanted]
    other = [pair for pair in pairs if (pair[0]["correct"], pair[1]["correct"]) == wanted[::-1]]
    same = [pair for pair in pairs if pair[0]["correct"] == pair[1]["correct"] and any(pair[1]["effective"])]
    primary, intervention = ("base", "RL") if direction == "forward" else ("RL", "base")
    names = (f"{primary} alone", f"{primary}, {intervention} intervening")
    found = [
        side_by_side(*pair, names, prompts[pair[0]["problem_id"]], lambda ids: str(tokenizer.decode(ids)))
        for pair in [*changed[:SHOWN], *other[:1], *same[:1]]
    ]
    text = (
        f"The policy is {cell.criterion} > {cell.epsilon:.3g}, seed {cell.seed}: of {len(pairs)} responses the "
        f"verdict changed from {_verdict(wanted[0])} to {_verdict(wanted[1])} in {len(changed)}, and the other way in "
        f"{len(other)}. Shown are the first {len(changed[:SHOWN])} of those, by problem, {len(other[:1])} of these, "
        f"and {len(same[:1])} whose verdict stayed.\n\nEffective replacements are underlined and framed; what the "
        "primary would have drawn is their tooltip. Grey is what both begin with; a bar marks where they part."
    )
    return Section(f"Responses side by side, {direction}", text, pairs=found)


def _verdict(correct: bool) -> str:
    return "correct" if correct else "incorrect"


def side_by_side(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    names: tuple[str, str],
    prompt: str,
    decode: Callable[[list[int]], str],
) -> SideBySide:
    """Two responses to a problem with the same random numbers.

    Args:
        before: row of the primary alone.
        after: row of the mixed policy.
        names: of either.
        prompt: as text.
        decode: text of token ids.
    """
    ids = before["completion_ids"], after["completion_ids"]
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*ids, strict=False))))
    places = zip(after["positions"], after["effective"], after["primary_ids"], strict=True)
    replaced = {position: own for position, effective, own in places if effective}

    def pieces(row: Mapping[str, Any], marked: Mapping[int, int]) -> list[Piece]:
        found = []
        kinds = [
            position if position in marked else "shared" if position < shared else "own"
            for position in range(len(row["completion_ids"]))
        ]
        start = 0
        for kind, run in groupby(kinds):  # text of a run: a character can be of several tokens
            length = len(list(run))
            text = decode(row["completion_ids"][start : start + length])
            if isinstance(kind, int):
                found.append(Piece(text, "replaced", decode([marked[kind]])))
            else:
                found.append(Piece(text, "shared" if kind == "shared" else "own"))
            start += length
        return found

    number = f"Problem {after['problem_id']}, sample {after['sample_id']}"
    count = f"{len(replaced)} of {after['length']} tokens replaced"
    return SideBySide(
        f"{number}: {count}" + ("" if replaced else ", the same response"),
        prompt,
        ((names[0], before["correct"], pieces(before, {})), (names[1], after["correct"], pieces(after, replaced))),
    )
