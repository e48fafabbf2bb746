"""Model cards: the base's real name, how the model was made, and no secrets or paths of a machine."""

from pathlib import Path

import pytest
from helpers.tiny_training import Build

from tokenshift.trainer.model_card import complete_card, made_section, public_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("pocket", "pocket"),
        ("/home/me/models/mine", "mine"),
        ("./mine", "mine"),
        ("outputs/a/model", "model"),
    ],
)
def test_public_names(name: str, shown: str) -> None:
    assert public_name(name) == shown


def test_a_card_names_the_base(build: Build, tmp_path: Path) -> None:
    trainer = build(max_steps=1)
    trainer.card_section = made_section({"data": "a|b", "left out": None, "token": "hf_" + "x1" * 12})
    trainer.create_model_card(model_name="mine")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "None" not in card.partition("## Quick start")[0]
    assert 'model="."' in card
    assert "## Advantage weighting" in card
    assert "| data | a\\|b |" in card
    assert "left out" not in card
    assert "licence:" not in card
    assert "x1x1" not in card
    assert str(tmp_path) not in card
    trainer.card_base = "org/base"
    trainer.create_model_card(model_name="mine")
    assert "fine-tuned version of `org/base`." in (tmp_path / "out" / "README.md").read_text()


def test_a_card_of_a_model_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("version of [None](https://huggingface.co/None).\n")
    complete_card(file, None)
    assert file.read_text() == "version of a model that was given by its weights.\n"
