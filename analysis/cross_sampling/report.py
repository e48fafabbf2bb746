"""The numbers, figures and page of a cross-sampling run, made from what is on disk: no model is needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby, takewhile
from typing import Any

from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.claims import mixture_statement
from tokenshift.analysis.cross_sampling.conclusions import NOT_REACHED, cross_conclusions
from tokenshift.analysis.cross_sampling.criteria import users_criteria_words
from tokenshift.analysis.cross_sampling.figures import AXES, accuracy_curves, areas, curve_name
from tokenshift.analysis.cross_sampling.intervention import DRAWS
from tokenshift.analysis.cross_sampling.pilot import EFFECTIVE, THRESHOLDS_FILE, Budget, Threshold, read_thresholds
from tokenshift.analysis.cross_sampling.recovery import COLUMNS, FIRST, NEEDED_FOR, NEEDED_OF, REWARD, recovery_summary
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, ENDS, SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_run import read_cells
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import NOT_DEFINED, PERCENT, interval_text, number_text
from tokenshift.analysis.report.page import (
    Piece,
    Section,
    SideBySide,
    report_facts,
    saved_figures,
    write_report,
)
from tokenshift.analysis.report.statements import of_this_run
from tokenshift.analysis.sampling.correctness import correctness_words, none_correct_remark
from tokenshift.analysis.storage.provenance import report_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import CORRECT

SHOWN = 4
"""Pairs of responses shown for each direction whose verdict changed as it should; of others there are fewer."""

FAR = 0.25
"""An effective budget that is missed by more than this part of it on the pilot is named."""

CROSS_SAMPLING_METHOD = """Both policies see the same mixed text. Where the criterion's score lies above epsilon, the \
intervention draws the token, else the primary does: forward, the base is the primary and RL intervenes; backward, \
the other way. Both draw at every position, so it is known what the primary would itself have drawn: an intervention \
is effective if its token is another one, and a policy covers the share of all disagreements, positions along its \
responses where the two draws differ, that it replaces. {draws} Shares are of all tokens of all responses; numbers \
(#) are means per response.

A policy that covers nearly every disagreement recovers nearly all by construction. The control that counts is \
random_disagreement, the intervention's token at a random share of the disagreements, at as many effective \
replacements: where the two draws agree, as they do at most random positions, an intervention changes nothing.

Recovery is the part of RL's gain in accuracy that is there (forward) or gone (backward): 0 % at the primary's own \
accuracy, 100 % at the intervention's. Brackets, bands and whiskers are 95 % bootstrap intervals, resampled by \
problem, with seeds and samples pooled.

The criteria: js_top_p = JS of the distributions truncated to the nucleus of top-p 0.7, where no other is named \
(arXiv 2603.22446), js = JS of the whole distributions, forward_kl = KL(primary‖intervention), reverse_kl = \
KL(intervention‖primary), the entropy of either, delta_logp = how much less probable the primary's draw is under the \
intervention (arXiv 2603.22117), random positions, random_disagreement = random ones of the disagreements, position = \
the first tokens; none and all are the two models alone."""

DRAWS_TEXT = {
    "shared": "Both draws use the same random number (common random numbers), so that they differ only where the two \
distributions do. The publication's draws are independent, which makes effective shares larger than these.",
    "independent": "The two draws are independent, as the publication's are: they can differ where the distributions \
are the same.",
}
"""Sentences of a page on the draws: value of `DRAWS` -> words."""

SHARPENING_TEXT = """base^a: the base itself intervenes, its next-token probabilities raised to the power a and \
renormalised (token by token, which is the base at temperature 1/a and not the power distribution of whole responses \
of arXiv 2510.14901). What it recovers is due to sharpening alone, and not to what RL chose."""

NEEDED_TEXT = """The fewest tokens at which the straight lines between a criterion's policies, from none on in the \
order of their thresholds, recover so much of the gain; "not reached" where no policy that was run does, and as the \
end of an interval where some resamples do not. Between policies that are far apart a line says little: look at the \
table above."""

AREA_TEXT = """The area under straight lines through a criterion's points up to 10 % of all tokens, as a share of its \
largest: the mean recovery over the first 10 % of tokens, in %. Beyond a criterion's last policy the line goes on to \
the point where every token is the intervention's. A sibling study (arXiv 2603.22117) ranks delta_logp before KL \
before entropy before random."""

LEVEL_TEXT = """Of the area against effective replacements, {points:.0f} of 100 points are the same for every \
criterion, {direction}: the intervention's tokens everywhere replace only {share:.1f} % of the tokens, and beyond \
every curve is level. So it hardly tells criteria apart there; the tokens that 50 % and 90 % of the gain need do."""

BEST_TEXT = """The best of several thresholds looks better than it is. The interval is for the largest difference to \
RL's accuracy, paired by problem, and holds for all thresholds at once (sign flips of whole problems, studentised \
max-T). "Seen" and "not seen" mean that it lies above 0, or below, and are said of this RL model alone."""

UNDEFINED = "Recovery is not defined here: the interval of RL's gain in accuracy does not lie above 0."


def share_text(entry: Mapping[str, float] | None, *, with_interval: bool = True) -> str:
    """A share in per cent, with its interval or without; `-` for none."""
    if with_interval:
        return interval_text(entry, scale=PERCENT)
    return number_text(None if entry is None else entry["value"], scale=PERCENT)


def write_cross_report(
    folder: RunFolder,
    cells: Sequence[SweptPolicy],
    tokenizer: PreTrainedTokenizerBase,
    metadata: Mapping[str, Any],
    *,
    resamples: int = 1000,
    unmet: Sequence[Threshold] = (),
) -> dict[str, Any]:
    """Write `cross.json`, `cross.md`, `figures/` and `report.html`.

    Args:
        folder: The run's folder.
        cells: The policies to report, whose responses are all in the folder.
        tokenizer: The models' tokenizer.
        metadata: What the rows come from, with `prompts` by problem.
        resamples: Number of resamples of the bootstrap.
        unmet: Budgets that their criteria cannot meet, which have no policies.

    Returns:
        The numbers of `recovery_summary`; `statements`, that the mixture can beat RL, as a dictionary of `Statement`
        whose verdict is said of this run; `unmet`, one dictionary per budget that its criterion cannot meet, with
        `at_most`, the largest share on the pilot; `remarks` about them; and `correct`, the rule by which responses
        count as correct, where it is not that each reward is 0 or 1 and 1 is correct.
    """
    responses = read_cells(folder, cells, (*COLUMNS, REWARD))
    summary = recovery_summary(responses, resamples)
    threshold = metadata.get("correct_threshold", CORRECT)
    rule, remark = correctness_words(metadata), none_correct_remark(responses[REWARD].to_pylist(), threshold)
    if summary["graded"] or threshold != CORRECT:
        summary["correct"] = rule
    remarks = [*([] if remark is None else [remark]), *([] if summary["defined"] else [UNDEFINED])]
    thresholds = {threshold.key: threshold for threshold in read_thresholds(folder)}
    of_cells = (thresholds.get(_key(cell)) for cell in cells if cell.seed == cells[0].seed)
    used = [threshold for threshold in of_cells if threshold is not None]
    remarks += [*map(unmet_text, unmet), *map(far_text, filter(_is_far, used))]
    summary["unmet"] = [{**threshold.key._asdict(), "at_most": threshold.share} for threshold in unmet]
    summary["remarks"] = remarks
    statement = mixture_statement(responses)
    summary["statements"] = [{**asdict(statement), "verdict": of_this_run(statement.verdict)}]
    record = report_metadata(metadata)
    write_whole(folder.path / "cross.json", json.dumps({"metadata": record, **summary}, indent=1) + "\n")
    numbers = _numbers(summary, str(metadata["dataset"]))
    stated = _statements(summary)
    tables = [numbers, *(table for table in (_needed(summary), _areas(summary)) if table[1])]
    text = "\n".join(markdown_table(*table) for table in (*tables, stated))
    counted = [] if rule is None else [f"Accuracy is the share of responses with {rule}."]
    write_whole(folder.path / "cross.md", text + "".join(f"\n{line}\n" for line in (*counted, *remarks)))

    models = f"{record['base_model']} to {record['rl_model']}"
    method = CROSS_SAMPLING_METHOD.format(draws=DRAWS_TEXT[metadata.get("draws", DRAWS[0])])
    method += users_criteria_words(cell.criterion for cell in cells)
    if any(cell.sharpening is not None for cell in cells):
        method += f"\n\n{SHARPENING_TEXT}"
    noted = [Section("Remarks", "\n\n".join((*counted, *remarks)))] if counted or remarks else []
    sections = [
        *noted,
        Section("The publication's statement on the mixture", BEST_TEXT, table=stated),
        Section("Policies", "Shares, accuracies, recovery, and disagreements covered, in %.", table=numbers),
    ]
    words = {
        "Tokens needed for 50 % and for 90 % of the gain": NEEDED_TEXT,
        "Area under the recovery curve, up to 10 % of tokens": "\n\n".join((AREA_TEXT, *level_areas(summary))),
    }
    sections += [Section(*said, table) for said, table in zip(words.items(), tables[1:], strict=False)]
    for direction in DIRECTIONS:  # a direction that is no longer asked for may have figures of an earlier run
        for stale in (folder.path / "figures").glob(f"{direction}_*"):
            stale.unlink()
    for direction in dict.fromkeys(cell.direction for cell in cells):
        figures = _figures(summary, direction, f"{models}, {direction}")
        saved = saved_figures(folder.path / "figures", figures)
        sections.append(Section(f"Figures, {direction}", figures=saved))
    for direction in dict.fromkeys(cell.direction for cell in cells):
        section = _side_by_side(folder, summary, cells, direction, tokenizer, metadata["prompts"])
        if section is not None:
            sections.append(section)
    if used or unmet:
        matched = _matched([*used, *unmet][0])
        text = f"Found on a pilot for wanted shares of tokens {matched}; all that was tried is in {THRESHOLDS_FILE}."
        sections.append(Section("Thresholds", text, _thresholds([*used, *unmet])))
    sections.append(Section("How to read this", method))
    write_report(
        folder.path / "report.html",
        title=f"Are those tokens the cause: {models}",
        conclusions=cross_conclusions(summary),
        facts=report_facts(record, hidden=("seed",))
        | {
            "n": f"{summary['problems']} problems, {summary['cells'][0]['responses']} responses per policy",
            "RL's gain in accuracy, %": share_text(summary["levels"]["gain"]),
        },
        sections=sections,
        responses=[],
        token_text=str,
    )
    return summary


def _key(cell: SweptPolicy) -> Budget:
    budget = -1.0 if cell.budget is None else cell.budget
    return Budget(cell.direction, cell.criterion, cell.gamma, cell.sharpening, cell.match, budget)


def unmet_text(threshold: Threshold) -> str:
    """A line that names a budget that a criterion cannot meet, and the most that it can."""
    return (
        f"{_name(threshold)} cannot meet a budget of {PERCENT * threshold.budget:g} % of tokens "
        f"{_matched(threshold)}: at most {PERCENT * threshold.share:.3g} % on the pilot."
    )


def far_text(threshold: Threshold) -> str:
    """A line that names a budget which no threshold comes near, and the share that is nearest."""
    return (
        f"{_name(threshold)} comes no nearer to a budget of {PERCENT * threshold.budget:g} % of tokens "
        f"{_matched(threshold)} than {PERCENT * threshold.share:.3g} % on the pilot."
    )


def _is_far(threshold: Threshold) -> bool:
    return threshold.match == EFFECTIVE and abs(threshold.share - threshold.budget) > FAR * threshold.budget


def _name(threshold: Threshold) -> str:
    return f"{threshold.direction}: {curve_name({**asdict(threshold), 'most': None})}"


def _matched(threshold: Threshold) -> str:
    return "effectively replaced" if threshold.match == EFFECTIVE else "intervened"


Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Header and rows."""


def _statements(summary: Mapping[str, Any]) -> Table:
    columns = {"statement": "text", "published": "published", "here": "measured", "verdict": "verdict"}
    return list(columns), [[one[key] for key in columns.values()] for one in summary["statements"]]


def _numbers(summary: Mapping[str, Any], name: str) -> Table:
    """The table in the publication's form, one row per policy."""
    header = [
        "set",
        "direction",
        "criterion",
        "epsilon",
        "intervened %",
        "effective %",
        "effective #",
        "covered %",
        "length",
        "accuracy from",
        "to",
        *(["mean reward"] if summary["graded"] else []),
        "recovery %",
    ]
    rows = []
    gammas, caps = (any(cell[key] for cell in summary["cells"]) for key in ("gamma", "most"))
    powers = any(cell["sharpening"] is not None for cell in summary["cells"])
    for cell in summary["cells"]:
        start = summary["levels"]["base" if cell["direction"] == "forward" else "rl"]
        rows.append(
            [
                name,
                cell["direction"],
                cell["criterion"],
                *([f"{cell['gamma']:g}"] if gammas else []),
                *([number_text(cell["sharpening"], digits="g")] if powers else []),
                *([NOT_DEFINED if cell["most"] is None else str(cell["most"])] if caps else []),
                number_text(cell["epsilon"]),
                share_text(cell["intervened"]),
                share_text(cell["effective"]),
                interval_text(cell["effective_count"]),
                share_text(cell["covered"]),
                interval_text(cell["length"]),
                share_text(start, with_interval=False),
                share_text(cell["accuracy"]),
                *([interval_text(cell[REWARD])] if summary["graded"] else []),
                share_text(cell["recovery"]),
            ]
        )
    more = [*["gamma"] * gammas, *["base to the power"] * powers, *["at most #"] * caps]
    return [*header[:3], *more, *header[3:]], rows


def needed_text(entry: Mapping[str, float | None] | None, *, scale: float = 1.0, with_interval: bool = True) -> str:
    """The tokens that a recovery needs, with the interval or without; `-` where there is no recovery."""
    if entry is None:
        return NOT_DEFINED
    value, low, high = (number_text(entry[end], scale=scale, missing=NOT_REACHED) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if with_interval and entry["low"] is not None else value


def _needed(summary: Mapping[str, Any]) -> Table:
    """The tokens that are needed for a part of the gain; one row per curve."""
    units = {"effective_count": ("effective #", 1.0), "effective": ("effective %", PERCENT)}
    units["intervened"] = ("intervened %", PERCENT)
    columns = [(quantity, level) for quantity in NEEDED_OF for level in NEEDED_FOR]
    header = [f"{units[quantity][0]} for {level} %" for quantity, level in columns]
    rows = [
        [
            curve["direction"],
            curve_name(curve),
            *(needed_text(curve["needed"][quantity][level], scale=units[quantity][1]) for quantity, level in columns),
        ]
        for curve in summary["curves"]
    ]
    return ["direction", "criterion", *header], rows


def _areas(summary: Mapping[str, Any]) -> Table:
    """Areas up to 10 % of tokens and their differences to that of the reference; one row per curve."""
    references = dict.fromkeys(curve["reference"] for curve in summary["curves"] if curve["reference"] is not None)
    to_reference = f"to {' or '.join(references)}" if references else "difference"
    header = ("direction", "criterion", "area, intervened", to_reference, "area, effective", to_reference)
    names = ("area_intervened_10", "area_effective_10")
    columns = [column for name in names for column in (name, f"{name}_difference")]
    rows = [
        (curve["direction"], curve_name(curve), *(share_text(curve[column]) for column in columns))
        for curve in summary["curves"]
        if curve["most"] is None
    ]
    return header, rows


def level_areas(summary: Mapping[str, Any]) -> list[str]:
    """Sentences on directions in which areas against effective replacements are alike by construction: those in which
    the intervention's tokens everywhere replace less than the share of tokens that the area goes up to."""
    return [
        LEVEL_TEXT.format(direction=cell["direction"], share=PERCENT * share, points=PERCENT * (FIRST - share) / FIRST)
        for cell in summary["cells"]
        if cell["criterion"] == ENDS[1] and not cell["gamma"] and cell["sharpening"] is None
        if (share := (cell["effective"] or {"value": FIRST})["value"]) < FIRST
    ]


def _thresholds(thresholds: Sequence[Threshold]) -> Table:
    """The thresholds of budgets, and the budgets that have none."""
    header = ("direction", "criterion", "gamma", "wanted, %", "epsilon", "on the pilot, %", "pilot's tokens")
    rows = [
        (
            threshold.direction,
            curve_name({**asdict(threshold), "gamma": 0.0, "most": None}),
            f"{threshold.gamma:g}",
            f"{PERCENT * threshold.budget:g}",
            f"{threshold.epsilon:.4g}" if threshold.met else "cannot meet it",
            f"{'' if threshold.met else 'at most '}{PERCENT * threshold.share:.3g}",
            f"{threshold.tokens:,}",
        )
        for threshold in thresholds
    ]
    return header, rows


def _figures(summary: Mapping[str, Any], direction: str, title: str) -> dict[str, tuple[Figure, str]]:
    drawn: dict[str, tuple[Figure, str]] = {}
    for against, (words, _factor) in AXES.items():
        caption = (
            f"Accuracy against {words}, from none to all; grey: base and RL alone. Whiskers and bands: 95 % intervals."
        )
        drawn[f"{direction}_accuracy_{against}"] = (accuracy_curves(summary, direction, against, title), caption)
    if any(curve["direction"] == direction and curve["most"] is None for curve in summary["curves"]):
        caption = (
            "How few tokens suffice by each criterion: mean recovery over the first 10 % of tokens, and effective "
            "replacements for 50 % and 90 % of the gain, with 95 % intervals."
        )
        drawn[f"{direction}_areas"] = (areas(summary, direction, title), caption)
    return drawn


def shown_policy(summary: Mapping[str, Any], direction: str) -> dict[str, Any] | None:
    """The policy whose responses are shown.

    Among those of the first criterion it is the one with the fewest effective replacements that recovers 90 %; if none
    does, the one that recovers most. It is None if no criterion was swept.
    """
    curve = next((curve for curve in summary["curves"] if curve["direction"] == direction), None)
    if curve is None:
        return None
    index = curve["enough"]["effective"]
    if index is not None:
        return dict(summary["cells"][index])
    on_curve = [
        cell
        for cell in summary["cells"]
        if all(cell[name] == curve[name] for name in ("direction", "criterion", "gamma", "most", "sharpening"))
    ]
    sign = 1 if direction == "forward" else -1
    return dict(max(on_curve, key=lambda cell: sign * (cell["accuracy"] or {"value": 0.0})["value"]))


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
    fields = ("direction", "criterion", "epsilon", "budget", "most", "gamma", "sharpening")
    cell = next(cell for cell in cells if all(getattr(cell, name) == policy[name] for name in fields))
    alone = replace(SweptPolicy(direction, "none"), seed=cell.seed)
    before, after = (read_cells(folder, [swept]).to_pylist() for swept in (alone, cell))
    wanted = (False, True) if direction == "forward" else (True, False)  # verdicts before and after
    pairs = list(zip(before, after, strict=True))
    changed = [pair for pair in pairs if (pair[0]["correct"], pair[1]["correct"]) == wanted]
    other = [pair for pair in pairs if (pair[0]["correct"], pair[1]["correct"]) == wanted[::-1]]
    same = [pair for pair in pairs if pair[0]["correct"] == pair[1]["correct"] and any(pair[1]["effective"])]
    primary, intervention = ("base", "RL") if direction == "forward" else ("RL", "base")
    names = (f"{primary} alone", f"{primary}, {intervention} intervening")
    shown = [
        side_by_side(*pair, names, prompts[pair[0]["problem_id"]], lambda ids: str(tokenizer.decode(ids)))
        for pair in [*changed[:SHOWN], *other[:1], *same[:1]]
    ]
    text = (
        f"The policy is {cell.criterion} > {cell.epsilon:.3g}, seed {cell.seed}: of {len(pairs)} responses the "
        f"verdict changed from {_verdict(wanted[0])} to {_verdict(wanted[1])} in {len(changed)}, and the other way in "
        f"{len(other)}. Shown are the first {len(changed[:SHOWN])} of the former, by problem, {len(other[:1])} of "
        f"the latter, and {len(same[:1])} whose verdict stayed.\n\nEffective replacements are underlined and framed; "
        "what the primary would have drawn is their tooltip. Grey is what both begin with; a bar marks where they "
        "part."
    )
    return Section(f"Responses side by side, {direction}", text, pairs=shown)


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
        before: Row of the primary alone.
        after: Row of the mixed policy.
        names: Headings of both.
        prompt: The problem's prompt as text.
        decode: Returns the text of token ids.
    """
    ids = before["completion_ids"], after["completion_ids"]
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*ids, strict=False))))
    drawn = zip(after["positions"], after["effective"], after["primary_ids"], strict=True)
    replaced = {position: primary_id for position, effective, primary_id in drawn if effective}

    def pieces(row: Mapping[str, Any], marked: Mapping[int, int]) -> list[Piece]:
        parts = []
        kinds = [
            position if position in marked else "shared" if position < shared else "own"
            for position in range(len(row["completion_ids"]))
        ]
        start = 0
        for kind, run in groupby(kinds):  # a run is decoded as a whole, since one character can be several tokens
            length = len(list(run))
            text = decode(row["completion_ids"][start : start + length])
            if isinstance(kind, int):
                parts.append(Piece(text, "replaced", decode([marked[kind]])))
            else:
                parts.append(Piece(text, "shared" if kind == "shared" else "own"))
            start += length
        return parts

    number = f"Problem {after['problem_id']}, sample {after['sample_id']}"
    count = f"{len(replaced)} of {after['length']} tokens replaced"
    return SideBySide(
        f"{number}: {count}" + ("" if replaced else ", the same response"),
        prompt,
        ((names[0], before["correct"], pieces(before, {})), (names[1], after["correct"], pieces(after, replaced))),
    )
