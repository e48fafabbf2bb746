"""Shared fixtures of comparisons, and a tracker that keeps what it is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """The update and the numbers of each log that `--report_to comet_ml` gives to the tracker."""
    from transformers import TrainerCallback
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    from tokenshift.trainer.guard import trackers

    taken: list[tuple[int, dict[str, float]]] = []

    class Keeping(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            taken.append((state.global_step, dict(logs)))

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "comet_ml", Keeping)
    monkeypatch.setitem(trackers.PACKAGES, "comet_ml", ("comet_ml", lambda: True))
    return taken
