"""All signs, looked for in one run, and the outcome as text of 80 columns and as data for JSON."""

import textwrap
from collections.abc import Sequence
from typing import Any

from tokenshift.trainer.diagnosis import signs  # noqa: F401 - registers the signs
from tokenshift.trainer.diagnosis.registry import SIGNS, Found, Sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

WIDTH = 80
MOST_SPANS = 4
"""Spans of updates that are shown of a sign; more are counted."""

Findings = Sequence[tuple[Sign, Found]]


def diagnose(run: RunRecord) -> list[tuple[Sign, Found]]:
    """The signs that are there, with what was seen, in the registry's order."""
    return [(sign, found) for sign in SIGNS.values() if (found := sign.look(run)) is not None]


def spans(updates: Sequence[int], logged: Sequence[int]) -> str:
    """Updates in words: logs that follow one another are shown as from the first to the last."""
    places = {step: place for place, step in enumerate(dict.fromkeys(logged))}
    runs: list[list[int]] = []
    for step in updates:
        follows = runs and step in places and places.get(runs[-1][-1], -2) == places[step] - 1
        runs[-1].append(step) if follows else runs.append([step])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:MOST_SPANS]]
    more = f" and {len(runs) - MOST_SPANS} more" if len(runs) > MOST_SPANS else ""
    return ", ".join(shown) + more


def as_text(run: RunRecord, findings: Findings) -> str:
    """The findings for a person, in lines of at most 80 columns; a long name may be longer."""
    lines: list[str] = []
    for number, (sign, found) in enumerate(findings, 1):
        where = f" (updates {spans(found.updates, run.steps)})" if found.updates else ""
        evidence = f"{found.evidence.removesuffix('.')}{where}."
        lines += [f"{number}. {sign.title} ({sign.name})"]
        for label, text in (("seen", evidence), ("means", sign.meaning), ("do", found.remedy)):
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"   {label:7}",
                subsequent_indent=" " * 10,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def heading(run: RunRecord, findings: Findings) -> str:
    """One line: which logs were looked at, and how many signs were found."""
    steps = run.steps
    many = f"{len(steps)} log{'s' * (len(steps) != 1)}"
    seen = f"{many} of updates {steps[0]} to {steps[-1]}" if steps else "no log of an update"
    count = len(findings)
    outcome = f"{count} sign{'s' * (count != 1)} of trouble" if count else "nothing looks wrong"
    few = f"; most signs need {FEWEST_LOGS} logs" if len(steps) < FEWEST_LOGS else ""
    return f"{seen}: {outcome}{few}"


def as_data(run: RunRecord, findings: Findings) -> dict[str, Any]:
    """The findings for JSON."""
    return {
        "output_dir": None if run.folder is None else str(run.folder),
        "logs": len(run.steps),
        "updates": max(run.steps, default=0),
        "signs": [
            {
                "sign": sign.name,
                "title": sign.title,
                "meaning": sign.meaning,
                "evidence": found.evidence,
                "updates": list(found.updates),
                "remedy": found.remedy,
            }
            for sign, found in findings
        ],
    }
