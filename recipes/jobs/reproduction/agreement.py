"""Do two sets of seeds say the same? Statements on which they differ are left open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenshift.analysis.report.statements import NOT_SEEN, OPEN, SEEN
from tokenshift.recipes.jobs.reproduction.rows import Row


@dataclass(frozen=True)
class Agreement:
    """A statement by two sets of seeds.

    Attributes:
        row: By these seeds.
        other: By the others, as its `reproduction.json` has it; None where it lacks the statement.
        verdict: The verdict of both where they agree, else `open`.
    """

    row: Row
    other: Mapping[str, Any] | None
    verdict: str

    @property
    def agrees(self) -> bool:
        """Whether both sets have the same verdict."""
        return self.other is not None and bare_verdict(self.other["verdict"]) == bare_verdict(self.row.verdict)

    def as_dict(self) -> dict[str, Any]:
        """The agreement, ready for JSON."""
        names = ("measured", "verdict", "seeds", "estimate")
        other = None if self.other is None else {name: self.other[name] for name in names}
        return {"id": self.row.id, "agrees": self.agrees, "verdict": self.verdict, "other": other}


def bare_verdict(verdict: str) -> str:
    """A verdict without the words behind it, such as "in this run"."""
    return next((word for word in (NOT_SEEN, SEEN, OPEN) if verdict.startswith(word)), OPEN)


def agreements(rows: Sequence[Row], other: Mapping[str, Any]) -> list[Agreement]:
    """Each statement by both sets of seeds.

    Args:
        rows: The rows of one set.
        other: What the `reproduction.json` of the other holds.
    """
    by_id = {row["id"]: row for row in other["rows"]}
    result = []
    for row in rows:
        beside = by_id.get(row.id)
        if beside is None:
            words = f"{OPEN}: the other seeds have no such row"
        elif bare_verdict(beside["verdict"]) == bare_verdict(row.verdict):
            words = row.verdict
        else:
            mine, theirs = (" ".join(map(str, seeds)) for seeds in (row.seeds, beside["seeds"]))
            words = (
                f"{OPEN}: {bare_verdict(row.verdict)} with seeds {mine}, "
                f"{bare_verdict(beside['verdict'])} with seeds {theirs}"
            )
        result.append(Agreement(row, beside, words))
    return result
