"""Finds out what a model's name stands for, as far as that shows without loading anything."""

from pathlib import Path

from tokenshift.analysis.storage.user_paths import user_path

SHIPPED_MODELS = ("pocket", "smollm2")
"""Models that come with the project."""

MODEL_CONFIGS = ("config.json", "adapter_config.json")
"""A model's folder has one of these files."""


def local_folder(name: str, setting: str) -> Path | None:
    """The folder that a name stands for; None for a hub name and for what comes with the project.

    Args:
        name: the name that the user gave, without a revision.
        setting: the argument whose value the name is, for the message.

    Raises:
        ValueError: if the name looks like a path, or is a folder, and is not a model's folder.
    """
    if name in SHIPPED_MODELS:
        return None
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = user_path(name, setting)
    if not looks_local and not folder.is_dir():
        return None
    if not _holds_model(folder):
        hint = "."
        if _holds_model(folder / "model"):  # as in a training's output_dir
            hint = f"; did you mean {name.rstrip('/')}/model?"
        elif not folder.exists():
            hint = "; there is no such folder."
        raise ValueError(f"{setting}={name!r} is not a folder with a config.json or an adapter_config.json{hint}")
    return folder


def _holds_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in MODEL_CONFIGS)
