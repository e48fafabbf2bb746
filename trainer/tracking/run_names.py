"""The name, the group and the tags of a W&B run whose user gave none."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from tokenshift.trainer.weighting.description import variant_name

VARIABLES = {"name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "tags": "WANDB_TAGS"}
"""Environment variables by which W&B takes what a run is called."""

LONGEST_TAG = 64
"""Characters that W&B takes for a tag."""


def run_names(args: Any, model: str | None, dataset: str | None = None) -> dict[str, Any]:
    """Default name, group and tags of a run, such as `high_k3, seed 0` in the group `pocket on pocket`.

    Args:
        args: the trainer's config, a `DivergenceGRPOConfig`.
        model: the name or folder of the model that is trained, if it is known.
        dataset: the name of its data, if it is known.

    Returns:
        `name`, `group` (None where nothing is known of model and data) and `tags`.
    """
    variant = variant_name(args)
    known = [_short(name) for name in (model, dataset) if name]
    tags = dict.fromkeys(["tokenshift", variant, str(args.loss_type), *known])
    return {
        "name": f"{variant}-seed{args.seed}",
        "group": "-".join(dict.fromkeys(known)) or None,
        "tags": [tag[:LONGEST_TAG] for tag in tags],
    }


def missing_names(names: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The names that no environment variable of W&B sets."""
    return {name: value for name, value in names.items() if value and not environment.get(VARIABLES[name])}


@contextmanager
def names_by_default(args: Any, model: str | None) -> Iterator[None]:
    """Let a W&B run that begins now take the names that nobody gave it.

    Args:
        args: the trainer's config; without a weighting, nothing is changed.
        model: the name or folder of the model that is trained, if it is known.
    """
    names = run_names(args, model) if hasattr(args, "weighting") else {}
    if getattr(args, "run_name", None):
        names.pop("name", None)
    chosen = missing_names(names, os.environ)
    values = {VARIABLES[name]: value if isinstance(value, str) else ",".join(value) for name, value in chosen.items()}
    wandb = sys.modules.get("wandb")
    if values and wandb is not None and wandb.run is None:
        wandb.teardown()  # it reads the environment once, for the first run of a process
    os.environ.update(values)
    try:
        yield
    finally:
        for variable in values:
            os.environ.pop(variable, None)


def _short(name: str) -> str:
    """The last part of a path or of a hub name."""
    return PurePath(name).name or name
