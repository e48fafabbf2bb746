"""How a planned training is launched: processes, and what the engine shares out between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, read_yaml


@dataclass(frozen=True)
class Launch:
    """Processes of a training, and what each holds.

    Attributes:
        processes: over all machines, one per GPU.
        machines: how many.
        engine: `one process`, `DDP`, `ZeRO-1` to `ZeRO-3`, `FSDP1` or `FSDP2`; other words where nothing is trained.
        offloads_optimizer, offloads_parameters: whether these lie in host memory.
        on_cpu: whether the training computes on CPU.
    """

    processes: int = 1
    machines: int = 1
    engine: str = "one process"
    offloads_optimizer: bool = False
    offloads_parameters: bool = False
    on_cpu: bool = False

    def __str__(self) -> str:
        one, several = ("CPU process", "CPU processes") if self.on_cpu else ("GPU", "GPUs")
        where = f" on {self.machines} machines" if self.machines > 1 else ""
        engine = f", {self.engine}" if self.engine else ""
        return f"{self.processes} {one if self.processes == 1 else several}{where}{engine}"

    @property
    def shares_parameters(self) -> bool:
        return self.engine in ("ZeRO-3", "FSDP1", "FSDP2")

    @property
    def shares_gradients(self) -> bool:
        return self.shares_parameters or self.engine == "ZeRO-2"

    @property
    def shares_optimizer(self) -> bool:
        return self.shares_gradients or self.engine == "ZeRO-1"

    @property
    def is_deepspeed(self) -> bool:
        return self.engine.startswith("ZeRO")


def read_launch(file: Path, *, processes: int | None = None, machines: int | None = None) -> Launch:
    """The launch that an accelerate config describes.

    Args:
        file: the config.
        processes, machines: instead of those in the config.

    Raises:
        ValueError: if the file holds no mapping, or names an engine that is not known here.
    """
    try:
        config: Any = read_yaml(file)
    except UnreadableYamlError as error:
        raise ValueError(f"{str(file)!r} {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(file)!r} is no accelerate config: it holds no mapping.")
    number = processes or written_processes(config, file)
    kind = str(config.get("distributed_type") or "NO").upper()
    deepspeed, fsdp = config.get("deepspeed_config") or {}, config.get("fsdp_config") or {}
    if kind == "DEEPSPEED":
        engine = f"ZeRO-{deepspeed.get('zero_stage', 2)}" if deepspeed.get("zero_stage", 2) else "DDP"
    elif kind == "FSDP":
        engine = f"FSDP{fsdp.get('fsdp_version', 1)}"
    elif kind in ("NO", "MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU"):
        engine = "DDP" if number > 1 else "one process"
    else:
        raise ValueError(f"distributed_type={kind} of {str(file)!r} is not one that a training can be planned for.")
    return Launch(
        processes=number,
        machines=machines or int(config.get("num_machines") or 1),
        engine=engine,
        offloads_optimizer=deepspeed.get("offload_optimizer_device", "none") not in ("none", None)
        or bool(fsdp.get("fsdp_offload_params")),
        offloads_parameters=deepspeed.get("offload_param_device", "none") not in ("none", None)
        or bool(fsdp.get("fsdp_offload_params")),
        on_cpu=bool(config.get("use_cpu")) or kind == "MULTI_CPU",
    )


def written_processes(config: Mapping[str, Any], file: Path) -> int:
    """The number of processes that an accelerate config says; one where it says none.

    Args:
        config: its settings.
        file: where they were read, for the message.

    Raises:
        ValueError: if it is no whole number of at least 1.
    """
    written = config.get("num_processes") or 1
    if type(written) is not int or written < 1:
        raise ValueError(f"num_processes={written!r} of {str(file)!r} must be a whole number of at least 1.")
    return written
