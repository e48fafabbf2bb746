"""The console that all recipes print to."""

from rich.console import Console

console = Console()
