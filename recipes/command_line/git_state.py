"""The git commit that a folder is at, and whether files that git follows were changed since."""

import subprocess
from pathlib import Path
from typing import Any

LONGEST_ANSWER = 20.0
"""Seconds that git may take; a repository on a slow disk is left undescribed."""


def git_state(folder: Path) -> dict[str, Any] | None:
    """The state of the checkout that a folder lies in.

    Args:
        folder: The folder.

    Returns:
        `commit` (40 hex digits) and `dirty`, whether a file that git follows differs from the commit; None where the
        folder is in no checkout, or git is missing or does not answer.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, **({} if changed is None else {"dirty": bool(changed)})}


def _git(folder: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_ANSWER,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
