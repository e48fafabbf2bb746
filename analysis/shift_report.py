"""The numbers, figures and page of a run, from what is on disk: no model is needed."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.shift_run import RunFolder
from tokenshift.analysis.statements import Statement, statements
from tokenshift.analysis.summary import summarise
from tokenshift.analysis.whole_file import write_whole


def read_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of an analysis.

    Raises:
        ValueError: if there is none.
    """
    file = folder / "summary.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder)!r} holds no summary.json of an analysis.") from error
    return found


def write_shift_report(
    folder: RunFolder, tokenizer: PreTrainedTokenizerBase, *, resamples: int = 1000, control: Path | None = None
) -> dict[str, list[Statement]]:
    found = summarise(folder.table, resamples=resamples)
    write_whole(folder.path / "summary.json", json.dumps(found) + "\n")
    other = None if control is None else read_summary(control)
    return {
        kind: statements(groups["all"], None if other is None else next(iter(other.values()))["all"])
        for kind, groups in found.items()
    }
