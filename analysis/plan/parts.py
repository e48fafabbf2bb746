"""The parts of a process's memory, and what runs out first. Trainings and analyses are planned by the same."""

from collections.abc import Sequence
from dataclasses import dataclass

CUDA_CONTEXT = 2**30
"""Bytes that CUDA, its libraries and the gaps between blocks of torch's allocator take, about."""


@dataclass(frozen=True)
class Part:
    """One use of memory by one process.

    Attributes:
        name: what it is.
        size: bytes.
        phases: when it is there; always when empty.
        on_host: whether it lies in host memory.
        note: where its size comes from.
    """

    name: str
    size: int
    phases: tuple[str, ...] = ()
    on_host: bool = False
    note: str = ""

    def bytes_in(self, phase: str) -> int:
        """Bytes that it takes in a phase."""
        return self.size if not self.phases or phase in self.phases else 0


def peak(parts: Sequence[Part], phase: str, *, on_host: bool = False) -> int:
    """Bytes of a phase on a process's device, or in host memory beside it."""
    return sum(part.bytes_in(phase) for part in parts if part.on_host == on_host)


def largest_phase(parts: Sequence[Part], phases: Sequence[str]) -> str:
    """The phase that takes the most memory of a device."""
    return max(phases, key=lambda phase: peak(parts, phase))


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The memory of a process.

    Attributes:
        parts: what it holds.
        phases: what it goes through, in order.
        capacity: bytes of its device; None where they are not known, as those of a CPU's share of a machine.
    """

    parts: list[Part]
    phases: tuple[str, ...]
    capacity: int | None

    @property
    def peak(self) -> int:
        """Bytes of the phase that takes the most, on a process's GPU or, on CPU, in its memory."""
        return peak(self.parts, largest_phase(self.parts, self.phases))

    @property
    def tightest_phase(self) -> str:
        """The first phase that does not fit the device; the one that takes the most where all do."""
        full = [
            phase for phase in self.phases if self.capacity is not None and peak(self.parts, phase) > self.capacity
        ]
        return full[0] if full else largest_phase(self.parts, self.phases)

    @property
    def host_peak(self) -> int:
        """Bytes of host memory of a process on a GPU."""
        return max(peak(self.parts, phase, on_host=True) for phase in self.phases)

    @property
    def fits(self) -> bool:
        """Whether all phases fit the device; True where its size is not known."""
        return self.capacity is None or self.peak <= self.capacity

    def largest_parts(self) -> dict[str, int]:
        """Bytes of the device's parts in the tightest phase by name, the largest first."""
        sizes: dict[str, int] = {}
        for part in self.parts:
            if not part.on_host and (size := part.bytes_in(self.tightest_phase)):
                sizes[part.name] = sizes.get(part.name, 0) + size
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))
