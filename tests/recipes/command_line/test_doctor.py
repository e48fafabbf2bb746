"""`tokenshift doctor`: exit statuses, JSON, width, and what it imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tokenshift.recipes.command_line.doctor import main

WATCHED = """
import sys
from tokenshift.recipes.command_line.command import main
status = main(sys.argv[1:])
print("heavy:", sorted({"torch", "trl", "transformers", "numpy"} & sys.modules.keys()))
sys.exit(status)
"""


def write_run(folder: Path, reward: float) -> Path:
    """A run of 20 updates whose groups are all equal, or not, by its reward."""
    folder.mkdir()
    equal = 0.9 if reward > 0.9 else 0.1
    logs = [{"step": step, "loss": 0.0, "reward": reward, "frac_reward_zero_std": equal} for step in range(1, 21)]
    (folder / "log_history.json").write_text(json.dumps(logs))
    return folder


def test_status_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    well, ill = write_run(tmp_path / "well", 0.5), write_run(tmp_path / "ill", 0.95)
    assert main([str(well)]) == 0
    assert "20 logs of updates 1 to 20: nothing looks wrong" in capsys.readouterr().out
    assert main([str(well), str(ill)]) == 3
    shown = capsys.readouterr().out
    assert "1. Most groups teach nothing (equal_groups)" in shown
    assert "0.90 on average, reward 0.95 (updates 1 to 20)." in " ".join(shown.split())
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith(str(tmp_path)))


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ill = write_run(tmp_path / "ill", 0.95)
    assert main([str(ill), "--json"]) == 3
    data = json.loads(capsys.readouterr().out)
    assert (data["output_dir"], data["logs"], data["updates"]) == (str(ill), 20, 20)
    (sign,) = data["signs"]
    assert sign.keys() == {"sign", "title", "meaning", "evidence", "updates", "remedy"}
    assert (sign["sign"], sign["updates"]) == ("equal_groups", list(range(1, 21)))


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    ill = write_run(tmp_path / "ill", 0.95)
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, "doctor", str(ill)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 3
    assert run.stdout.splitlines()[-1] == "heavy: []"
