"""Names of models and sets as names of files."""

import hashlib
import re


def file_name(name: str) -> str:
    """The name without characters that file systems refuse, and a hash that keeps similar names apart."""
    plain = re.sub(r"[^\w.@-]+", "_", name).strip("_")
    return f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
