"""Hashes by which a changed model is recognised."""

from pathlib import Path

import pytest

from tokenshift.recipes.inputs.contents import SAMPLE_BYTES, SAMPLES_PER_FILE, content_hash


@pytest.mark.parametrize("size", [3 * SAMPLE_BYTES + 5, SAMPLES_PER_FILE * SAMPLE_BYTES + 12345])
def test_a_changed_model_has_another_hash(size: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(size))
    before = content_hash([file])
    for place in (
        (0, size - 1) if size > SAMPLES_PER_FILE * SAMPLE_BYTES else (0, SAMPLE_BYTES, size // 2 + 1, size - 1)
    ):
        with file.open("r+b") as opened:
            opened.seek(place)
            opened.write(b"1")
        changed = content_hash([file])
        assert changed != before
        before = changed
