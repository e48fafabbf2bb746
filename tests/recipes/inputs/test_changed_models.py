"""Copies of models with another config: what changes, what is shared, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from helpers.pocket_models import BASE
from transformers import AutoConfig, AutoModelForCausalLM

from tokenshift.recipes.change_model import main
from tokenshift.recipes.inputs.changed_models import changed_config, save_changed_model


def test_a_longer_context_is_read_from_the_new_folder_with_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, original = tmp_path / "models" / "longer", (BASE / "config.json").read_text()
    overrides = {"max_position_embeddings": 512, "rope_theta": 40000.0}
    words = ["--model", "pocket", "--model_config_overrides", json.dumps(overrides), "--output_dir", str(folder)]
    assert main(words) == 0
    assert "max_position_embeddings=512, rope_theta=40000.0" in capsys.readouterr().out
    config = AutoConfig.from_pretrained(folder)
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (512, 40000.0)
    assert (BASE / "config.json").read_text() == original
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (BASE, folder))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    ids = torch.arange(1, 21).unsqueeze(0)
    assert not torch.equal(before(ids).logits, after(ids).logits), "the rotary base is not used"
    assert main(words) == 0, "the same folder again is no mistake"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["longer"]


def test_an_older_file_keeps_its_rotary_base_at_the_top() -> None:
    old = {"model_type": "qwen2", "max_position_embeddings": 4096, "rope_theta": 10000.0}
    changed = changed_config(old, {"max_position_embeddings": 16384, "rope_theta": 40000.0})
    assert changed == {"model_type": "qwen2", "max_position_embeddings": 16384, "rope_theta": 40000.0}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"max_position_embedings": 512}, "no setting of a llama model; did you mean max_position_embeddings?"),
        ({}, "is empty"),
    ],
)
def test_senseless_settings_are_refused(overrides: dict[str, int], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        save_changed_model("pocket", overrides, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already and has another config"):
        save_changed_model("pocket", {"max_position_embeddings": 512}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("given", [[], ["--model_config_overrides", "512"], ["--model_config_overrides", "{a"]])
def test_no_mapping_ends_in_one_line(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is no mapping of names to values" in line
