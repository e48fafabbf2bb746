"""Hashes of what the names of models and data stand for, by which a changed model or data set is recognised."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset

from tokenshift.recipes.inputs.models import ModelSource

MODEL_FILES = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "tokenizer.json")
"""Glob patterns of the files in a model's folder that decide what it says."""

TEXT_COLUMNS = ("prompt", "completion", "solution")
"""Columns of problems that their hash is of."""

MOST_ROWS = 10_000
"""Problems of a large data set whose rows are hashed."""

SAMPLE_BYTES, SAMPLES_PER_FILE = 2**16, 1024
"""Length of a sample of a large file, and how many are hashed: 64 MiB in all."""


def content_hash(paths: Iterable[Path]) -> str:
    """Hash of files' names, sizes and bytes.

    A file above 64 MiB is hashed by 1,024 evenly spaced samples: a training changes every weight.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            if size <= SAMPLES_PER_FILE * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(SAMPLES_PER_FILE):
                file.seek(sample * (size - SAMPLE_BYTES) // (SAMPLES_PER_FILE - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def model_content(source: ModelSource) -> str | None:
    """Hash of a model folder's weights, config and tokenizer, or the commit of a hub model."""
    return path_content(source.path, source.config)


def path_content(path: str, config: Any) -> str | None:
    """The hash of `model_content`, from a model's folder or hub name and its config."""
    folder = Path(path)
    if not folder.is_dir():
        return getattr(config, "_commit_hash", None)
    return content_hash(file for pattern in MODEL_FILES for file in folder.glob(pattern))


def data_content(data: Dataset) -> str:
    """Hash of the rows of a data set."""
    rows = json.dumps(data.to_list(), sort_keys=True, default=str)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def problems_content(data: Dataset) -> dict[str, Any]:
    """The number of problems, and a hash of their prompts and solutions; of many, that of evenly spaced ones."""
    rows = data.select_columns([name for name in TEXT_COLUMNS if name in data.column_names])
    if len(rows) > MOST_ROWS:
        rows = rows.select([index * (len(rows) - 1) // (MOST_ROWS - 1) for index in range(MOST_ROWS)])
    return {"rows": len(data), "content": data_content(rows)}
