"""The table of a reproduction's parts while they run, in 80 columns; lines where there is no terminal."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenshift.recipes.command_line.child_processes import log_tail
from tokenshift.recipes.command_line.console import duration
from tokenshift.recipes.command_line.live_view import LiveView
from tokenshift.recipes.jobs.reproduction.parts import Part

LINE_EVERY = 60.0
"""Seconds between two lines about one running part, where there is no terminal."""

OTHERS = 56
"""Width of the table's other columns beside what a part says."""

STYLES = {"waiting": "dim", "left out": "dim", "failed": "bold red", "done": "green", "running": "yellow"}

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Sequences that move a terminal's cursor or colour its text."""


def last_line(log: Path) -> str:
    """The last words in a log."""
    text = CONTROL.sub("", log_tail(log))
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return " ".join(lines[-1].split()) if lines else ""


class PartsView(LiveView):
    """Shows parts while they run.

    Args:
        parts: All parts.
        console: The console that the table is shown on.
    """

    def __init__(self, parts: Sequence[Part], console: Console) -> None:
        super().__init__(console)
        self._parts, self._began = parts, time.monotonic()
        self._started: dict[str, float] = {}
        self._shown = {part.name: part.state for part in parts}
        self._said: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        done = sum(part.state == "done" for part in self._parts)
        if self._live is None and done:
            self._print(f"{done} of {len(self._parts)} parts are done already")
        self.refresh()
        return self

    def refresh(self) -> None:
        """Refresh as `LiveView` does; a part's clock begins when it is first seen running."""
        for part in self._parts:
            if part.state == "running":
                self._started.setdefault(part.name, time.monotonic())
        super().refresh()

    def _print_changes(self) -> None:
        """Print a line for each part in another state, and now and then what a running one says."""
        for part in self._parts:
            if part.state != self._shown[part.name]:
                self._shown[part.name] = part.state
                self._print(f"{part.name:26} {self._words(part)}")
            elif part.state == "running":
                self._follow(part)

    def _follow(self, part: Part) -> None:
        now, (before, words) = time.monotonic(), self._said.get(part.name, (self._started[part.name], ""))
        if now - before >= LINE_EVERY and (line := last_line(part.log)) not in ("", words):
            self._said[part.name] = (now, line)
            self._print(f"{part.name:26} {line}")

    def _words(self, part: Part) -> str:
        if part.state == "failed":
            return f"failed, {part.failure}"
        done = sum(other.state == "done" for other in self._parts)
        tail = f" in {duration(part.seconds)} ({done} of {len(self._parts)} parts)" if part.state == "done" else ""
        return f"{part.state}{tail}"

    def table(self) -> Table:
        """The table in its present state."""
        done = sum(part.state == "done" for part in self._parts)
        elapsed = duration(time.monotonic() - self._began)
        table = Table(
            title=f"{done} of {len(self._parts)} parts, {elapsed} elapsed",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("part", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("took", justify="right", no_wrap=True)
        table.add_column("says", no_wrap=True, overflow="ellipsis")
        for part in self._parts:
            running = part.state == "running"
            seconds = part.seconds + (time.monotonic() - self._started[part.name] if running else 0.0)
            said = (last_line(part.log) if running else part.failure or "")[: max(10, self._console.width - OTHERS)]
            state = Text(part.state, style=STYLES[part.state])
            table.add_row(part.name, state, duration(seconds) if seconds else "", Text(said))
        return table
