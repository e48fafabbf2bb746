"""A copy of a model whose `config.json` has other values, so that everything that reads the folder has them too.

vLLM loads a model by the config of its folder, whatever a training passes to transformers. So a model whose context is
lengthened has to be a folder of its own, from which the training, the rollouts and the analyses all start.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import CONFIG_MAPPING, AutoConfig

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.inputs.model_files import refusal
from tokenshift.recipes.inputs.models import resolve_model

CONFIG_FILE = "config.json"
ROPE_THETA = "rope_theta"
"""The rotary base, which older files have at the top of `config.json`, and newer ones in `rope_parameters`."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""Suffixes of files that are large, and that nobody edits."""


def changed_config(
    config: Mapping[str, Any], overrides: Mapping[str, Any], own_kind: Any | None = None
) -> dict[str, Any]:
    """A model's `config.json` with other values.

    Args:
        config: what the file holds.
        overrides: values by name; a mapping replaces the whole mapping of that name.
        own_kind: the class of the model's config where that is code that comes with the model.

    Raises:
        ValueError: for a setting that the model's config does not have, or one that the model would not read.
    """
    kind = str(config.get("model_type"))
    if own_kind is None and kind not in CONFIG_MAPPING:
        raise ValueError(
            f"The model's type {kind!r} is not one of transformers', so its config cannot be checked; if code comes "
            "with the model, read it, and give --trust_remote_code true to run it."
        )
    config_class = own_kind or type(AutoConfig.for_model(kind))
    known = {*config_class().to_dict(), *config, ROPE_THETA}
    for name in overrides:
        if name not in known:
            raise ValueError(
                f"model_config_overrides names {name!r}, which is no setting of a {kind} model"
                f"{close_match(name, known) or '.'}"
            )
    changed = {**config, **overrides}
    if "rope_parameters" in changed and ROPE_THETA in overrides:
        changed["rope_parameters"] = {**changed["rope_parameters"], ROPE_THETA: changed.pop(ROPE_THETA)}
    read = config_class.from_dict(changed)
    rope = getattr(read, "rope_parameters", None) or {}
    for name, value in overrides.items():
        taken = rope.get(name) if name == ROPE_THETA else getattr(read, name, None)
        if taken != value and not isinstance(value, Mapping):
            raise ValueError(
                f"model_config_overrides sets {name}={value!r}, but a {kind} model would have {taken!r} all the same."
            )
    return changed


def save_changed_model(
    model: str,
    overrides: Mapping[str, Any],
    folder: Path,
    revision: str | None = None,
    *,
    trust_remote_code: bool = False,
) -> bool:
    """Save a copy of a model with another config. Weights share the disk with the original where the disk allows it.

    Args:
        model: `pocket`, `smollm2`, a folder or a hub name.
        overrides: values of `config.json` by name.
        folder: the new folder, which appears whole or not at all.
        revision: the revision of a hub model.
        trust_remote_code: whether code that comes with the model may run, to check the settings of its config.

    Returns:
        Whether the folder was made; False if it was there already with the same config.

    Raises:
        ValueError: for a model that is not there, a senseless setting, or a folder that holds something else.
    """
    if not overrides:
        raise ValueError("model_config_overrides is empty; name at least one setting of config.json.")
    source = Path(resolve_model(model, "model"))
    if not source.is_dir():
        try:
            source = Path(snapshot_download(model, revision=revision))
        except Exception as error:  # the hub and its client raise many kinds
            raise ValueError(f"model={model!r} cannot be loaded: {' '.join(str(error).split())}") from error
    if not (source / CONFIG_FILE).is_file():
        raise ValueError(f"model={model!r} has no {CONFIG_FILE}: it is an adapter; merge it into its base first.")
    own_kind = None
    try:
        saved = read_json(source / CONFIG_FILE)
        if not isinstance(saved, dict):
            raise ValueError(f"{CONFIG_FILE} holds no settings")
        if trust_remote_code and "AutoConfig" in saved.get("auto_map", {}):
            own_kind = type(AutoConfig.from_pretrained(source, trust_remote_code=True))
    except Exception as error:  # whatever the file makes transformers raise
        raise refusal("model", model, error) from error
    config = changed_config(saved, overrides, own_kind)
    if folder.exists():
        there = folder / CONFIG_FILE
        if there.is_file() and read_json(there) == config:
            return False
        raise ValueError(f"output_dir={str(folder)!r} is there already and has another config; name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        shutil.copytree(source, staged, copy_function=_link_or_copy, dirs_exist_ok=True)
        write_whole(staged / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        staged.chmod(0o755)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return True


def _link_or_copy(source: str, target: str) -> None:
    """Give a file of weights a second name where that is possible, and copy any other file."""
    real = os.path.realpath(source)
    if source.endswith(WEIGHTS):
        with suppress(OSError):
            os.link(real, target)
            return
    shutil.copyfile(real, target)
