"""Names of models and sets as names of files."""

import hashlib
import re


def file_name(name: str) -> str:
    """The name without what file systems mind, and a hash: two names can look alike so."""
    plain = re.sub(r"[^\w.@-]+", "_", name).strip("_")
    return f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
