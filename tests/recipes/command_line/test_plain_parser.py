"""Commands that read their words themselves name a mistake in one line, and leave nothing behind."""

from pathlib import Path

import pytest

from tokenshift.recipes.command_line import doctor, export

MAINS = {"doctor": doctor.main, "export": export.main}


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("doctor", [], "output_dir; tokenshift doctor --help"),
        ("doctor", ["--jsno", "x"], "unrecognized arguments: --jsno"),
        ("doctor", ["nowhere"], "'nowhere' is no folder"),
        ("doctor", ["."], "'.' has neither log_history.json nor a checkpoint"),
        ("export", ["gone"], "file; tokenshift export --help"),
        ("export", ["gone", "x.csv"], "'gone' is neither a Parquet file nor a folder"),
        ("export", ["gone", "x.csv", "--colums", "js"], "unrecognized arguments: --colums"),
        ("export", ["gone", "x.xlsx"], "'x.xlsx' must end in .csv or .tsv"),
    ],
)
def test_mistakes(
    command: str,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert MAINS[command](words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert not list(tmp_path.iterdir())
