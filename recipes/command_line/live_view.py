"""The view of work that goes on: a live table, or lines where there is no terminal."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table


class LiveView(ABC):
    """Shows work while it goes on; use it as a context manager, and call `refresh` now and then.

    Args:
        console: The console that the table is shown on.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Draw the table again; without a terminal, print lines about what has changed."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
        else:
            self._print_changes()

    @abstractmethod
    def table(self) -> Table:
        """The table in its present state."""

    @abstractmethod
    def _print_changes(self) -> None:
        """Print lines about what has changed."""

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)
