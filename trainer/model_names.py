"""Names of models that stand for no model, told in one line and before anything is loaded."""

from pathlib import Path
from typing import Any

CONFIG_FILES = ("config.json", "adapter_config.json")
"""One of these is in every model's folder."""


def check_model_name(model: Any) -> None:
    """Refuse a path that is no model's folder; a model itself, and a hub name, are left to who loads them.

    Args:
        model: what a trainer was given as its model.

    Raises:
        ValueError: for such a path.
    """
    if not isinstance(model, str):
        return
    path = Path(model)
    if path.is_dir():
        if not any((path / name).is_file() for name in CONFIG_FILES):
            raise ValueError(f"model={model!r} is a folder without {CONFIG_FILES[0]}: no model is saved in it.")
    elif path.exists():
        raise ValueError(f"model={model!r} is a file; give the folder that the model was saved in.")
    elif model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
        hint = " Python does not expand ~: use os.path.expanduser." if model.startswith("~") else ""
        raise ValueError(f"model={model!r} is a path, and there is no such folder.{hint}")


def unreachable_model(model: Any, error: OSError) -> str | None:
    """The message for an error whose cause is a hub name that stands for no model, in one line; None for other errors.

    Args:
        model: what a trainer was given as its model.
        error: what was raised while it was loaded. Those of transformers have no number; those of a disk have one.
    """
    if not isinstance(model, str) or Path(model).is_dir() or error.errno is not None:
        return None
    first = " ".join(str(error).strip().splitlines()[:1])
    return (
        f"model={model!r} is no folder here, and no model of the hub that can be loaded ({first}); correct the name, "
        "or give the folder that the model was saved in."
    )
