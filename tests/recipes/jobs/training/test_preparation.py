"""What is refused before a model is loaded: contexts that are too short, and settings that rollouts would follow."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.pocket_models import BASE
from transformers import AutoModelForCausalLM, GenerationConfig

from tokenshift.recipes.jobs.training.preparation import prepare


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded"))


def words(out: Path, *more: str) -> list[str]:
    return ["--config", "pocket", "--output_dir", str(out), "--train_size", "64", "--eval_size", "8", *more]


def test_a_context_that_is_too_short_is_refused_with_both_numbers(tmp_path: Path) -> None:
    message = (
        r"^model_name_or_path='pocket' reads 256 tokens; the longest prompt has (\d+), and with "
        r"max_completion_length=250 a response could end at (\d+): lower max_completion_length to (\d+)"
    )
    with pytest.raises(ValueError, match=message) as refusal:
        prepare(words(tmp_path / "out", "--max_completion_length", "250"))
    prompt, end, fitting = (int(number) for number in re.findall(message, str(refusal.value))[0])
    assert (end, fitting) == (prompt + 250, 256 - prompt)
    assert not (tmp_path / "out").exists()
    prepare(words(tmp_path / "fits", "--max_completion_length", str(fitting))).close()


@pytest.mark.parametrize(
    "lengthened",
    [
        '{"max_position_embeddings": 512}',
        '{"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256, '
        '"rope_theta": 10000.0}}',
    ],
)
def test_a_model_can_be_lengthened(lengthened: str, tmp_path: Path) -> None:
    given = ["--max_completion_length", "250", "--model_init_kwargs", lengthened]
    prepare(words(tmp_path / "out", *given)).close()


def test_settings_of_the_folder_that_rollouts_would_follow_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE, model)
    config = GenerationConfig.from_pretrained(BASE)
    config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)
    config.save_pretrained(model)
    prepare(words(tmp_path / "out", "--model_name_or_path", str(model))).close()  # TRL gives these itself
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"no_repeat_ngram_size": 3}))
    with pytest.raises(ValueError, match=r"sets no_repeat_ngram_size=3: rollouts would be sampled with that"):
        prepare(words(tmp_path / "other", "--model_name_or_path", str(model)))
    given = ["--generation_kwargs", '{"no_repeat_ngram_size": 0}']
    prepare(words(tmp_path / "third", "--model_name_or_path", str(model), *given)).close()
