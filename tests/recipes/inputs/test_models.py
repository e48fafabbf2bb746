"""Adapters by name: merged into their base where that gives the adapter's logits, else refused before weights load."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import perturbed, tiny_model
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PolyConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)

from tokenshift.recipes.inputs.models import find_model
from tokenshift.recipes.pocket.make_base import make_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, config: PeftConfig) -> Any:
    """A model with a moved adapter, which is saved in the folder."""
    model = get_peft_model(tiny_model("llama"), config).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    perturbed(torch.nn.ParameterList(trained), 0.1)  # type: ignore[arg-type]
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
        LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM"),
        IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    ],
)
def test_an_adapter_is_merged(base: Path, tmp_path: Path, config: PeftConfig) -> None:
    adapted = adapter(base, tmp_path, config)
    model = find_model("rl_model", str(tmp_path)).load("float32", CPU)
    assert not hasattr(model, "peft_config")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
        PolyConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    ],
)
def test_an_adapter_that_is_not_in_the_weights_is_refused(base: Path, tmp_path: Path, config: PeftConfig) -> None:
    config.base_model_name_or_path = str(base)
    config.save_pretrained(tmp_path)
    kind = config.peft_type.value
    words = rf"rl_model='{tmp_path}' .*is a {kind} adapter, which cannot be merged .* train an adapter that can"
    with pytest.raises(ValueError, match=words) as refusal:
        find_model("rl_model", str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_an_activated_lora_is_refused_by_its_name(base: Path, tmp_path: Path) -> None:
    """It works from its invocation tokens on, so that no weights are the adapter."""
    config = LoraConfig(r=2, target_modules=["q_proj"], alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM")
    config.base_model_name_or_path = str(base)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"'{tmp_path}' is an aLoRA adapter, which cannot .* such as a plain LoRA"):
        find_model("rl_model", str(tmp_path))


def test_what_peft_does_not_merge_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(model: Any) -> None:
        raise NotImplementedError("not this one")

    adapter(base, tmp_path, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    monkeypatch.setattr("peft.tuners.lora.LoraModel.merge_and_unload", unable)
    with pytest.raises(ValueError, match=f"^'{tmp_path}' is a LORA adapter, .* PEFT says: not this one"):
        find_model("rl_model", str(tmp_path)).load("float32", CPU)


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_of_one_side_of_a_tied_matrix(tied: bool, tmp_path: Path) -> None:
    """Merged it would change the other side too; on an untied base it is merged."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    plain = tiny_model("qwen2", tie_word_embeddings=tied)
    plain.save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    config = LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    adapted = get_peft_model(plain, config)
    perturbed(torch.nn.ParameterList([p for p in adapted.parameters() if p.requires_grad]), 0.3)  # type: ignore[arg-type]
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    source = find_model("rl_model", str(folder))
    if not tied:
        assert source.load("float32", CPU) is not None
        return
    with pytest.raises(ValueError, match=r"one matrix in its base \(tie_word_embeddings\).* save the base untied"):
        source.load("float32", CPU)


def test_a_merge_that_changes_the_model_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter(base, tmp_path, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    monkeypatch.setattr("peft.tuners.lora.LoraModel.merge_and_unload", lambda self: self.unload())
    with pytest.raises(ValueError, match="with the adapter merged gives other logits"):
        find_model("rl_model", str(tmp_path)).load("float32", CPU)
