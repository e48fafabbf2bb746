"""JSON files that a program wrote: read whole, or known to be damaged."""

import json
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.damage import DamagedFileError


def parse_json(text: str | bytes) -> Any:
    """Parse a text in JSON.

    Raises:
        ValueError: for whatever is wrong with it: no JSON, no UTF-8, nested without end, numbers of too many digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(file: Path, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        file: the file.
        kind: `dict` or `list`, if it has to be one.

    Raises:
        DamagedFileError: for a file with anything else in it; the message is a line that names the file.
        OSError: if the file cannot be read.
    """
    try:
        content = parse_json(file.read_bytes())
        if kind is not None and not isinstance(content, kind):
            raise ValueError(f"it holds {type(content).__name__} instead of {kind.__name__}")
    except ValueError as error:
        raise DamagedFileError(
            f"{file} is damaged ({' '.join(str(error).split())}); bring it back from a copy, or delete it."
        ) from error
    return content
