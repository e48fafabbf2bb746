"""Prints a plan of memory on a terminal: the parts by phase, what runs out first, what to change."""

from collections.abc import Sequence

from rich.panel import Panel
from rich.table import Table

from tokenshift.analysis.plan.parts import MemoryPlan, largest_phase, peak
from tokenshift.recipes.command_line.console import console
from tokenshift.trainer.plan.launch import Launch
from tokenshift.trainer.reference_cache import GIB

H100_TFLOPS = 989.0
"""Floating-point operations of an H100 in bfloat16, in 1e12 per second."""

MOST_CHANGES = 3
"""Changes that are named, those of the largest parts."""


def show_memory(plan: MemoryPlan, device: str) -> None:
    """Print the parts of a process's memory in each phase.

    Args:
        plan: the plan.
        device: what a process has its memory on: `GPU`, or `process`.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column(f"GiB per {device}", overflow="fold")
    for phase in plan.phases:
        table.add_column(phase, justify="right")
    table.add_column("", overflow="fold", style="dim")

    def add(name: str, sizes: Sequence[int], note: str = "", style: str | None = None) -> None:
        shown = (f"{size / GIB:.2f}" if size else "" for size in sizes)
        table.add_row(name, *shown, note, style=style)

    for part in plan.parts:
        if not part.on_host:
            add(part.name, [part.bytes_in(phase) for phase in plan.phases], part.note)
    add("together", [peak(plan.parts, phase) for phase in plan.phases], style="bold")
    for part in plan.parts:
        if part.on_host:
            add(f"host: {part.name}", [part.bytes_in(phase) for phase in plan.phases], part.note)
    console.print(Panel(table, title="plan: nothing was loaded", title_align="left", border_style="cyan"))


def peak_lines(plan: MemoryPlan, launch: Launch) -> list[str]:
    """The most memory that a process takes, and what all of a machine's take together."""
    lines = [f"most memory: {plan.peak / GIB:.2f} GiB, in the phase {largest_phase(plan.parts, plan.phases)}"]
    if launch.on_cpu and launch.processes > 1:
        lines[0] += f" (all {launch.processes} processes: {launch.processes * plan.peak / GIB:.2f} GiB)"
    elif not launch.on_cpu:
        local = launch.processes // launch.machines
        lines.append(f"host memory: {local * plan.host_peak / GIB:.2f} GiB a machine, beside what loading takes")
    return lines


def verdict_lines(plan: MemoryPlan, device: str, changes: Sequence[str], *, fits: bool = True) -> list[str]:
    """Whether the plan fits, what runs out first, and what to change.

    Args:
        plan: the plan.
        device: what is said to have the capacity, such as `a GPU of 80 GiB`.
        changes: what to change, one line each.
        fits: whether everything else fits, such as files on the disk.
    """
    lines = []
    if plan.capacity is not None:
        words = "fits" if plan.fits else f"does not fit: the phase {plan.tightest_phase} runs out first"
        lines.append(f"{device}: {words}")
    head = "to need less:" if plan.fits and fits else "change:"
    return [*lines, *(f"{head} {line}" for line in changes[:MOST_CHANGES])]


def time_words(operations: float, tflops: float | None, utilization: float, *, on_cpu: bool) -> str:
    """The time of operations, in words.

    Args:
        operations: floating-point operations of a process.
        tflops: those that it can make, in 1e12 per second; an H100's when None, and none on CPU.
        utilization: the share of these that it makes.
        on_cpu: whether it computes on CPU.
    """
    if tflops is None and on_cpu:
        return "give --plan_tflops for its time"
    rate = tflops or H100_TFLOPS
    seconds = operations / (rate * 1e12 * utilization)
    taken = f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
    return f"{taken} at {utilization:.0%} of {rate:g} TFLOP/s, without sampling"
