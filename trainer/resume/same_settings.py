"""Whether all processes of a run were given the same settings and data.

Machines that read configs or files of their own can differ. Processes with different batch sizes wait for one another
without end; with different learning rates they train apart without a word.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch

from tokenshift.analysis.secrets import hide_secrets
from tokenshift.trainer.resume.process_group import host_of

OF_A_PROCESS = ("local_rank", "logging_dir", "run_name", "deepspeed", "hub_token")
"""Settings that may differ: they name a process, a moment or a user, or hold objects of an engine."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Memory address in the text of an object."""

LONGEST = 60
"""Characters of a value that a message shows."""


def settings_of(*parts: Any) -> dict[str, str]:
    """Names and values, as text, of the fields of dataclasses; secrets are hidden."""
    return {
        field.name: _ADDRESS.sub("", repr(hide_secrets(getattr(part, field.name, None), field.name)))
        for part in parts
        for field in dataclasses.fields(part)
        if field.init and field.name not in OF_A_PROCESS
    }


def check_same_settings(settings: Mapping[str, str], what: str = "arguments and configs") -> None:
    """Compare settings over all processes; every process must call it, once there is a group.

    Args:
        settings: Names and values.
        what: What has to be the same, for the message.

    Raises:
        ValueError: On every process, if they differ: the first name, with the values of two processes.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, dict(settings))
    if text := difference(everyone):
        raise ValueError(f"{text}; give all processes of a run the same {what}.")


def difference(everyone: list[dict[str, str]]) -> str | None:
    """The first difference of some rank's settings from those of rank 0, in words; None where there is none."""
    first = everyone[0]
    for rank, settings in enumerate(everyone[1:], start=1):
        names = [name for name in first if settings.get(name) != first[name]]
        names += [name for name in settings if name not in first]
        if names:
            others = f" (and {', '.join(names[1:4])}{', ...' if len(names) > 4 else ''})" if len(names) > 1 else ""
            mine, its = (_short(values.get(names[0], "not there")) for values in (first, settings))
            return (
                f"{names[0]} is {mine} on rank 0 (host {host_of(0)}), but {its} on rank {rank} (host {host_of(rank)})"
                f"{others}"
            )
    return None


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}..."
