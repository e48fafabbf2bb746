"""Shared fixtures of comparisons."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import FILE


@pytest.fixture
def write_comparison(tmp_path: Path) -> Callable[..., Path]:
    """Writes a comparison's file, with lines replaced."""

    def written(*changes: tuple[str, str], text: str = FILE) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest of a comparison with fake recipes."""
    from tokenshift.analysis.comparison import report

    monkeypatch.setattr(report, "variant_figures", lambda summary, results: {})
