"""Files that are not what was written: the error for them, and what can be told from a file alone."""

import zipfile
import zlib
from pathlib import Path


class DamagedFileError(ValueError):
    """A file or a checkpoint is not what was written; the message is one line that names it and what to do."""


def is_whole_zip(path: Path, contents: bool = True) -> bool:
    """Whether a zip file, as NumPy and PyTorch write them, has all its members.

    Args:
        path: the file.
        contents: whether the members' contents are compared with their checksums, which reads the whole file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return not contents or archive.testzip() is None
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def check_zip(path: Path) -> None:
    """Refuse a zip file, as NumPy and PyTorch write them, whose contents do not match their checksums.

    Raises:
        DamagedFileError: if it is damaged.
    """
    if not is_whole_zip(path):
        raise DamagedFileError(
            f"{path} is damaged: its contents are not those that were written. Bring it back from a copy, or delete "
            "it and make it again."
        )
