"""A context in which a policy can be measured during training without any effect on the run."""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tokenshift.analysis.divergence.hidden_states import evaluation_mode


@contextmanager
def undisturbed(trainer: Any, seed: int) -> Iterator[None]:
    """Run code with the model in eval mode and its own random numbers; afterwards everything is as it was.

    The random states of Python, numpy and torch (all devices), the mode of every module, and the metrics that a GRPO
    trainer gathers for its logs are restored.

    Args:
        trainer: any trainer of TRL's.
        seed: the seed of the random numbers inside; each rank derives its own from it.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what libraries draw from
    gathered = {name: getattr(trainer, name) for name in ("_pending_metrics", "_pending_extra_logs") if
                hasattr(trainer, name)}  # fmt: skip
    for name in gathered:
        setattr(trainer, name, defaultdict(list))
    try:
        with torch.random.fork_rng(), evaluation_mode(trainer.model):
            rank_seed = seed * 1_000_003 + trainer.accelerator.process_index
            torch.manual_seed(rank_seed)
            random.seed(rank_seed)
            np.random.seed(rank_seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for name, value in gathered.items():
            setattr(trainer, name, value)
        if gathered:
            trainer._metrics["eval"].clear()
