"""What made a file: models, settings and library versions, kept in its metadata."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

METADATA_KEY = b"tokenshift"


def table_metadata(metadata: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Schema metadata of a table, with thresholds and versions added."""
    record = {**metadata, "near_zero": NEAR_ZERO, "high": HIGH, "versions": versions()}
    return {METADATA_KEY: json.dumps(record).encode()}


def read_metadata(path: Path) -> dict[str, Any]:
    """What `write_table` was told of a table."""
    metadata: dict[str, Any] = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return metadata


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers depend on."""
    names = ("tokenshift", "torch", "transformers", "trl")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
