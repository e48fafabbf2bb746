"""Models, settings and library versions that a file was made with, kept in the file's metadata."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.parquet_files import open_parquet
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

METADATA_KEY = b"tokenshift"


def table_metadata(metadata: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Schema metadata of a table, with thresholds and versions added."""
    return {METADATA_KEY: hide_in_text(json.dumps(_with_provenance(metadata))).encode()}


def report_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a report: as `read_metadata` gives that of a table, so with text in place of other keys."""
    record: dict[str, Any] = json.loads(hide_in_text(json.dumps(_with_provenance(metadata))))
    return record


def _with_provenance(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, "near_zero": NEAR_ZERO, "high": HIGH, "versions": versions()}


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `table_metadata` gave a file, as a dictionary."""
    metadata: dict[str, Any] = json.loads(open_parquet(path).schema_arrow.metadata[METADATA_KEY])
    return metadata


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on, by name."""
    names = ("tokenshift", "torch", "transformers", "trl")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
