"""Paths as users write them, with `~` for a home folder."""

import errno
import os
from pathlib import Path


def user_path(name: str | Path, setting: str) -> Path:
    """The path that a user wrote.

    Args:
        name: the path; it need not exist.
        setting: the setting whose value it is, for the message.

    Raises:
        ValueError: if no file can have that name: it begins with the home folder of a user who is not there, is too
            long, or has a zero byte in it.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:  # pathlib's, which names no path
        user = Path(name).parts[0]
        raise ValueError(f"{setting}={str(name)!r}: {user} is no user's home folder here; write it out.") from error
    try:
        os.lstat(path)
    except ValueError as error:
        raise ValueError(f"{setting}={str(name)!r} is no path: it has a zero byte in it.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            shown = f"{str(name)[:40]}..."
            raise ValueError(
                f"{setting}={shown!r} has {len(str(name)):,} characters, too many for a path here; give a shorter one."
            ) from error
    return path
