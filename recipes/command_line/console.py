"""The console that all recipes print to, and durations as it shows them."""

from rich.console import Console

console = Console()


def duration(seconds: float) -> str:
    """A duration in hours and minutes, or in minutes and seconds."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
    )
