"""A reward that keeps what it was given, for runs in processes of their own."""

import json
import os
from pathlib import Path
from typing import Any

FILE_VARIABLE = "TOKENSHIFT_TEST_ANSWERS"
"""Environment variable with the file that answers are added to."""


def right_at_first(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """1 for each completion of the first call that adds to the file, else 0; their ids become a line of the file."""
    place = Path(os.environ[FILE_VARIABLE])
    first = not place.exists()
    with place.open("a", encoding="utf-8") as file:
        file.write(json.dumps(completion_ids) + "\n")
    return [float(first)] * len(completions)
