"""A context in which a policy can be measured during training without any effect on the run."""

import copy
import random
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tokenshift.analysis.divergence.hidden_states import evaluation_mode
from tokenshift.trainer.policy.vllm_settings import sampling_group

ROLLOUT_STATE = ("environments", "_batch_environments", "_sync_tool_dicts", "_async_tool_dicts")
"""Attributes in which TRL keeps the environments and the tools of the rollouts it generates."""


@contextmanager
def set_aside(owner: Any, **replacements: Any) -> Iterator[None]:
    """Give an object other attributes; afterwards it has its own again, and none that it lacked.

    Args:
        owner: any object.
        replacements: values by the name of the attribute.
    """
    before = {name: vars(owner)[name] for name in replacements if name in vars(owner)}
    for name, value in replacements.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in replacements:
            if name in before:
                setattr(owner, name, before[name])
            else:
                vars(owner).pop(name, None)


@contextmanager
def fresh_environments(trainer: Any) -> Iterator[None]:
    """Let the generations inside step environments of their own, newly made by the trainer's factories.

    Args:
        trainer: any trainer of TRL's; without environments nothing is changed.
    """
    pool = getattr(trainer, "_environment_pool", None)
    if pool is None:
        yield
        return
    state = {name: getattr(trainer, name, None) for name in ROLLOUT_STATE}
    with set_aside(trainer, _environment_pool={name: [] for name in pool}, **state):
        yield


def _fill_pool(trainer: Any) -> None:
    """Make the environments of the training before any other, in the order in which TRL would make them.

    Otherwise those of a factory that counts or numbers its environments would be others after a measurement. Where an
    example picks one of several environments, how many a batch needs of each is not known, and none is made.
    """
    pool = getattr(trainer, "_environment_pool", None)
    if pool is None or trainer._multi_environment:
        return
    rows = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation  # of this rank's generation
    for name, factory in trainer.environment_factories.items():
        pool[name] += [factory() for _ in range(rows - len(pool[name]))]


def _logs_of_its_own(trainer: Any) -> dict[str, Any]:
    """Empty logs, metrics and tool state of a trainer that generates, by the attribute's name."""
    replacements: dict[str, Any] = {
        name: defaultdict(list) for name in ("_pending_metrics", "_pending_extra_logs") if hasattr(trainer, name)
    }
    if isinstance(metrics := getattr(trainer, "_metrics", None), dict):
        replacements["_metrics"] = {mode: defaultdict(list) for mode in metrics}
    if isinstance(logs := getattr(trainer, "_logs", None), dict):
        replacements["_logs"] = {
            name: deque() if isinstance(rows, deque) else defaultdict(deque) for name, rows in logs.items()
        }
    if tools := getattr(trainer, "_standalone_tools", None):
        replacements["_standalone_tools"] = copy.deepcopy(tools)  # a method's object is copied, a function is not
        replacements |= {name: getattr(trainer, name, None) for name in ROLLOUT_STATE}
    return replacements


@contextmanager
def undisturbed(trainer: Any, seed: int) -> Iterator[None]:
    """Run code with the model in eval mode and its own random numbers; afterwards everything is as it was.

    The random states of Python, numpy and torch (all devices), the mode of every module, and the metrics and logs
    that a trainer gathers are restored. Environments are new ones, and objects whose methods are tools are copies.

    Args:
        trainer: any trainer of TRL's.
        seed: the seed of the random numbers inside; each rank derives its own from it, or each group of ranks that
            share a vLLM engine.
    """
    _fill_pool(trainer)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what libraries draw from
    try:
        with (
            set_aside(trainer, **_logs_of_its_own(trainer)),
            fresh_environments(trainer),
            torch.random.fork_rng(),
            evaluation_mode(trainer.model),
        ):
            rank_seed = seed * 1_000_003 + sampling_group(trainer)
            torch.manual_seed(rank_seed)
            random.seed(rank_seed)
            np.random.seed(rank_seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
