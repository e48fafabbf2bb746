"""A check that a run is distributed as its launch command asked.

accelerate can start one process where several were asked for, or DDP where ZeRO or FSDP was, and train on without a
warning.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
from accelerate import Accelerator, PartialState
from accelerate.commands.config.config_args import default_yaml_config_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env

from tokenshift.analysis.storage.yaml_text import read_yaml

ENGINE_NAMES = {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP"}
"""Engines: accelerate's distributed type -> name in messages."""


@dataclass(frozen=True)
class AskedLaunch:
    """Settings that a launch command asked for; None where it did not say.

    Attributes:
        processes: the number of processes over all machines.
        engine: `"DeepSpeed"`, `"FSDP"` or None.
        source: the config file or the command line that said so, for messages.
    """

    processes: int | None
    engine: str | None
    source: str


def parse_launch_command(command: list[str]) -> AskedLaunch | None:
    """Read an `accelerate launch ...` command line and the config file it names; None if it is not one."""
    by_name = "launch" in command and any(Path(word).name == "accelerate" for word in command[:3])
    if not by_name and not any("accelerate.commands.launch" in word.replace("/", ".") for word in command[:3]):
        return None
    words = [part for word in command for part in (word.split("=", 1) if word.startswith("--") else [word])]

    def value_of(*flags: str) -> str | None:
        return next((words[i + 1] for i, word in enumerate(words[:-1]) if word in flags), None)

    file = value_of("--config_file") or default_yaml_config_file
    config = read_yaml(Path(file)) if Path(file).is_file() else {}
    processes = value_of("--num_processes", "--num-processes") or config.get("num_processes")
    engine = ENGINE_NAMES.get(str(config.get("distributed_type")).upper())
    if "--use_deepspeed" in words:
        engine = "DeepSpeed"
    if "--use_fsdp" in words:
        engine = "FSDP"
    return AskedLaunch(int(processes) if processes else None, engine, file if config else "the command line")


def asked_launch() -> AskedLaunch | None:
    """The settings of the `accelerate launch` above this process, or torchrun's world size; None if neither."""
    for parent in psutil.Process().parents():
        try:
            asked = parse_launch_command(parent.cmdline())
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if asked is not None:
            return asked
    if "WORLD_SIZE" in os.environ:
        return AskedLaunch(int(os.environ["WORLD_SIZE"]), None, "WORLD_SIZE")
    return None


def engine_name() -> str:
    """The engine of this run: `"DeepSpeed"`, `"FSDP"`, `"DDP"` or `"one process"`.

    accelerate decides it when its Accelerator is made; before that, this predicts the decision.
    """
    state = PartialState()
    chosen = ENGINE_NAMES.get(state.distributed_type.value)
    if chosen is None and not AcceleratorState._shared_state:
        sharing = state.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU)
        if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") and not parse_flag_from_env("ACCELERATE_USE_CPU"):
            chosen = "DeepSpeed"
        elif parse_flag_from_env("ACCELERATE_USE_FSDP") and sharing:
            chosen = "FSDP"
    return chosen or ("DDP" if state.num_processes > 1 else "one process")


def check_launch(running: PartialState | Accelerator, asked: AskedLaunch | None = None) -> None:
    """Compare the running processes and engine with those asked for.

    Args:
        running: the process's state, or an Accelerator.
        asked: what was asked for; found from the launch command when None.

    Raises:
        ValueError: if they differ; the message names both, and what to do.
    """
    asked = asked or asked_launch()
    if asked is None:
        return
    if asked.processes is not None and asked.processes != running.num_processes:
        raise ValueError(
            f"{asked.source} asks for {asked.processes} processes, but this run has {running.num_processes}. On CPU "
            "launch with accelerate_configs/ddp.yaml and --use_cpu true; `accelerate launch --cpu` starts one process."
        )
    engine = engine_name()
    if asked.engine is not None and engine != asked.engine:
        raise ValueError(
            f"{asked.source} asks for {asked.engine}, but this run uses {engine}. Unset ACCELERATE_USE_CPU; FSDP "
            "needs an accelerator device."
        )
