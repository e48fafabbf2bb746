"""The script of the README runs as it is printed, but for the hub: pocket and its problems stand in for the names."""

from pathlib import Path

import pytest
from helpers.documents import ROOT, blocks

from tokenshift.recipes.inputs import pocket_dataset, resolve_model

QUICK = """use_cpu=True, bf16=False, max_steps=2, max_completion_length=16, save_strategy="no","""


@pytest.mark.slow
def test_the_readme_script_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, *, split: str) -> object:
        asked.append((name, split))
        return pocket_dataset("train", 64)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    block = next(block for block in blocks(ROOT / "README.md", "python") if "Trainer" in block.code)
    assert len([line for line in block.code.splitlines() if line]) <= 10
    code = block.code.replace("DivergenceGRPOConfig(\n", f"DivergenceGRPOConfig(\n{QUICK}")
    code = code.replace('report_to="wandb"', 'report_to="none"')
    code = code.replace('"Qwen/Qwen2.5-1.5B"', repr(str(resolve_model("pocket"))))
    assert code.count("use_cpu") == 1
    assert code.count("Qwen") == 0
    script: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), script)
    trainer = script["trainer"]
    assert asked == [("trl-lib/DeepMath-103K", "train")]
    assert trainer.state.global_step == 2  # type: ignore[attr-defined]
    assert any("advantage_weight/mean" in row for row in trainer.state.log_history)  # type: ignore[attr-defined]
    assert trainer.args.updates_per_generation == 16  # type: ignore[attr-defined]
