"""Files named on a command line: argument configs and accelerate configs, by path or by the name of a shipped one.

The wheel holds both folders beside `recipes`, so that the names work without the project's checkout.
"""

import difflib
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
LAUNCH_CONFIGS = Path(__file__).parents[2] / "accelerate_configs"

RECORD = "record"
"""Key of a run's `config.yaml` that holds facts about how it was made, which are no settings (`run_record.py`)."""


def config_names(pattern: str = "*") -> list[str]:
    """Names of the shipped configs in `recipes/configs`, sorted."""
    return _names(CONFIGS, pattern)


def launch_config_names() -> list[str]:
    """Names of the shipped accelerate configs, sorted."""
    return _names(LAUNCH_CONFIGS)


def config_file(given: str, pattern: str = "*") -> Path:
    """The config file of a path, or of the name of a shipped config.

    Args:
        given: A path, or a name with or without `.yaml`.
        pattern: Pattern of the shipped configs that the message lists.

    Raises:
        ValueError: If there is none.
    """
    file = _file(given, CONFIGS, "--config")
    if file is None:
        names = config_names(pattern)
        raise ValueError(
            f"--config {given!r} is not a file{_nearest(given, names)}; recipes/configs/ holds some to start from: "
            f"{', '.join(names)}."
        )
    return file


def launch_config(given: str) -> Path:
    """The accelerate config of a path, or of the name of a shipped one.

    Args:
        given: A path, or a name with or without `.yaml`.

    Raises:
        ValueError: If there is none, or it holds something else.
    """
    file = _file(given, LAUNCH_CONFIGS, "--launch")
    if file is None:
        names = launch_config_names()
        raise ValueError(
            f"--launch {given!r} is neither a file nor one of {', '.join(names)}{_nearest(given, names)}."
        )
    read_launch(file, given)
    return file


def read_launch(file: Path, given: str | None = None) -> dict[str, Any]:
    """The settings that an accelerate config holds.

    Args:
        file: The file.
        given: What it is called in messages; the file's path when None.

    Raises:
        ValueError: If the file is not YAML, is out of bounds, or holds no mapping.
    """
    shown = str(file) if given is None else given
    try:
        settings = read_yaml(file)
    except UnreadableYamlError as error:
        raise ValueError(f"--launch {shown!r} {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"--launch {shown!r} is no accelerate config: it holds no mapping of settings to values.")
    return settings


def with_config_file(words: list[str]) -> list[str]:
    """The words of a command line with `--config=X` as two words, and a shipped config's name as its path."""
    words = list(words)
    joined = next((index for index, word in enumerate(words) if word.startswith("--config=")), None)
    if joined is not None:
        words[joined : joined + 1] = words[joined].split("=", 1)
    if "--config" in words:
        index = words.index("--config") + 1
        words[index : index + 1] = [str(config_file(words[index] if index < len(words) else "", "[!c]*"))]
    return words


def read_config(file: Path, command: str | None = None) -> dict[str, Any]:
    """The arguments that a config file holds, without the facts that a run's record has beside them.

    Args:
        file: The file.
        command: The command that the arguments are for.

    Raises:
        ValueError: If the file is not YAML, is out of bounds, holds no mapping, or is the record of another command.
    """
    try:
        config = read_yaml(file)
    except UnreadableYamlError as error:
        raise ValueError(f"--config {str(file)!r} {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"--config {str(file)!r} must hold a mapping of arguments to values.")
    facts = config.pop(RECORD, None)
    of = facts.get("command") if isinstance(facts, dict) else None
    if None not in (of, command) and of != command:
        raise ValueError(f"--config {str(file)!r} is the record of a run of `tokenshift {of}`, not of {command}.")
    return {str(key): value for key, value in config.items()}


def _names(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(path.stem for path in folder.glob(f"{pattern}.yaml"))


def _file(given: str, folder: Path, option: str) -> Path | None:
    path = user_path(given, option)
    candidates = [path]
    if given and path.name == given:  # a bare name
        candidates += [folder / given, folder / f"{given}.yaml"]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _nearest(given: str, names: list[str]) -> str:
    close = difflib.get_close_matches(given, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
