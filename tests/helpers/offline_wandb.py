"""Reads the record of an offline W&B run back."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

HEADER, BLOCK = 7, 32768
FULL, FIRST, LAST = 1, 2, 4
PATIENCE = 20.0
"""Seconds that W&B's service, a process of its own, is given to write what `finish` handed it."""


def _records(path: Path) -> list[Any]:
    """Every record of a run that is over: the last of them says so. A killed run is read as far as it came."""
    until = time.monotonic() + PATIENCE
    while True:
        records = list(_records_so_far(path))
        if time.monotonic() > until or any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.2)


def _records_so_far(path: Path) -> Iterator[Any]:
    """LevelDB's log framing: blocks of 32 KiB; chunks of crc32, length, type, payload."""
    data = path.read_bytes()
    if len(data) < HEADER:
        return
    magic, number, _ = struct.unpack("<4sHB", data[:HEADER])
    assert (magic, number) == (b":W&B", 0xBEE1)
    place, payload = HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # padding at a block's end
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        place += HEADER
        if kind == 0 or place + length > len(data):
            return
        payload = data[place : place + length] if kind in (FULL, FIRST) else payload + data[place : place + length]
        place += length
        if kind in (FULL, LAST):
            record = pb.Record()
            record.ParseFromString(payload)
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    """Logged rows of a `.wandb` file, nested keys as nested dicts."""
    rows = []
    for record in _records(path):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *parents, leaf = list(item.nested_key) or [item.key]
                place = row
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[leaf] = json.loads(item.value_json)
            rows.append(row)
    return rows


def summary(path: Path) -> dict[str, Any]:
    """The last value of each summary key in a `.wandb` file, nested keys joined by dots."""
    found = {}
    for record in _records(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found
