"""Runs the training recipe with accelerate's FSDP path opened to CPU and gloo, so that it can be tested without GPUs.

accelerate 1.15 never chooses FSDP where its state is MULTI_CPU; this gives it MULTI_GPU's with a CPU device.
"""

import os
import runpy
from pathlib import Path
from typing import Any

import accelerate.state
import torch
from accelerate.utils import DistributedType


def _prepare_backend(self: Any, cpu: bool = False, *_: Any) -> tuple[str | None, DistributedType]:
    if int(os.environ.get("LOCAL_RANK", -1)) == -1:
        return None, DistributedType.NO
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return "gloo", DistributedType.MULTI_GPU


def _set_device(self: Any) -> None:
    self.device = torch.device("cpu")


accelerate.state.PartialState._prepare_backend = _prepare_backend
accelerate.state.PartialState.set_device = _set_device

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "grpo_divweighted.py"), run_name="__main__")
