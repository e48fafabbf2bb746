"""The probe in TRL's trainers of causal LMs: right numbers, training untouched, settings of each kept."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.architectures import tiny_model as small_model
from helpers.probed_tables import assert_scored, fixed_trajectories, probe_rows
from helpers.tiny_training import SETTINGS, digit_reward, parameters, same
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)
from trl import (
    DistillationConfig,
    DistillationTrainer,
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.trainer import ShiftProbeCallback
from tokenshift.trainer.policy.heldout import heldout_score
from tokenshift.trainer.policy.requirements import check_can_be_sampled

COMMON = {name: SETTINGS[name] for name in ("report_to", "use_cpu", "bf16", "seed", "disable_tqdm", "save_strategy")}
COMMON |= {"max_steps": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
ROLLOUT = {"num_generations": 2, "max_completion_length": 6, "temperature": 0.8, "top_k": 5}


def texts(problems: Dataset) -> Dataset:
    return Dataset.from_dict({"text": [row["prompt"] + " 1" for row in problems.to_list()]})


def completions(problems: Dataset) -> Dataset:
    rows = problems.to_list()
    labels = [bool(number % 2) for number in range(len(rows))]
    return Dataset.from_dict(
        {"prompt": [row["prompt"] for row in rows], "completion": ["12"] * len(rows), "label": labels}
    )


def preferences(problems: Dataset) -> Dataset:
    rows = problems.to_list()
    return Dataset.from_dict(
        {"prompt": [row["prompt"] for row in rows], "chosen": ["12"] * len(rows), "rejected": ["3 4"] * len(rows)}
    )


def sft(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> SFTTrainer:
    args = SFTConfig(out, **COMMON, max_length=64, **settings)
    return SFTTrainer(model=model, args=args, train_dataset=texts(problems), peft_config=peft)


def dpo(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> DPOTrainer:
    args = DPOConfig(out, **COMMON, max_length=64, **settings)
    return DPOTrainer(model=model, args=args, train_dataset=preferences(problems), peft_config=peft)


def kto(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> KTOTrainer:
    args = KTOConfig(out, **COMMON, max_length=64, **settings)
    return KTOTrainer(model=model, args=args, train_dataset=completions(problems), peft_config=peft)


def rloo(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> RLOOTrainer:
    args = RLOOConfig(out, **COMMON, **ROLLOUT, **settings)
    return RLOOTrainer(model=model, reward_funcs=digit_reward, args=args, train_dataset=problems, peft_config=peft)


def grpo(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> GRPOTrainer:
    args = GRPOConfig(out, **COMMON, **ROLLOUT, **settings)
    return GRPOTrainer(model=model, reward_funcs=digit_reward, args=args, train_dataset=problems, peft_config=peft)


def distillation(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> DistillationTrainer:
    args = DistillationConfig(out, **COMMON, max_completion_length=6, temperature=0.8, top_k=5, **settings)
    teacher = AutoModelForCausalLM.from_pretrained(model.config._name_or_path)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    return DistillationTrainer(model=model, teacher_model=teacher, args=args, train_dataset=problems, peft_config=peft)


def orpo(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> Any:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    args = ORPOConfig(out, **COMMON, max_length=64, **settings)
    tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path)
    return ORPOTrainer(model=model, args=args, train_dataset=preferences(problems), processing_class=tokenizer)


def online_dpo(model: Any, problems: Dataset, out: str, peft: Any = None, **settings: Any) -> Any:
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    args = OnlineDPOConfig(out, **COMMON, max_length=64, max_new_tokens=6, temperature=0.8, top_k=5, **settings)
    tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path)
    prompts = problems.select_columns("prompt")
    return OnlineDPOTrainer(
        model=model, reward_funcs=digit_reward, args=args, train_dataset=prompts, processing_class=tokenizer
    )


Maker = Callable[..., Any]
CASES: list[tuple[Maker, bool, dict[str, Any]]] = [
    (sft, False, {}),
    (sft, True, {"packing": True, "packing_strategy": "wrapped"}),
    (dpo, False, {}),
    (dpo, True, {}),
    (dpo, False, {"precompute_ref_log_probs": True}),
    (kto, False, {}),
    (kto, True, {"gradient_checkpointing": False}),
    (rloo, False, {}),
    (rloo, True, {}),
    (grpo, False, {"beta": 0.1}),
    (distillation, False, {}),
    (orpo, False, {}),
    (online_dpo, False, {}),
]


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than these trainings, and other tests draw them; nor a word of what is experimental."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setattr("tokenshift.trainer.probe.callback.draw_probe_figures", lambda *args: {})


def loaded(path: str) -> Any:
    """The model with dropout, so that a probe that forgets its mode shows, and with settings that must not leak."""
    model = AutoModelForCausalLM.from_pretrained(path, attention_dropout=0.3)
    model.generation_config.repetition_penalty = 50.0
    return model


@pytest.mark.parametrize(("make", "peft", "settings"), CASES)
def test_right_numbers_and_training_untouched(
    tiny_model: str, problems: Dataset, tmp_path: Path, make: Maker, peft: bool, settings: dict[str, Any]
) -> None:
    adapter = LoraConfig(r=4, lora_dropout=0.3, target_modules="all-linear") if peft else None
    ends, losses = [], []
    for probed in (False, True):
        trainer = make(loaded(tiny_model), problems, str(tmp_path / str(probed)), adapter, **settings)
        if probed:
            probe = ShiftProbeCallback(trainer, problems, probe_size=3, max_new_tokens=5)
            trainer.add_callback(probe)
        trainer.train()
        ends.append(parameters(trainer))
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert same(*ends)
    assert losses[0] == losses[1]
    temperature = getattr(trainer, "temperature", 1.0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert_scored(trainer, base, trainer.model, step=2, temperature=temperature)
    assert max(row["js"] for row in probe_rows(trainer, 2)) > 1e-5
    assert max(row["js"] for row in probe_rows(trainer, 0)) < 1e-6, "the policy begins as the base"
    lengths = {len(trajectory.completion_ids) for trajectory in fixed_trajectories(trainer)}
    if make in (rloo, grpo, distillation, online_dpo):
        assert 5 < max(lengths) <= 6, "the trainer's own length"
        assert max(row["rank_rl"] for row in probe_rows(trainer, 2, "own")) <= 5, "the trainer's own top-k"
    else:
        assert max(lengths) == 5


def test_the_score_of_rloo(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer = rloo(loaded(tiny_model), problems, str(tmp_path))
    before = trainer._metrics
    score = heldout_score(trainer, problems.select(range(5)), batch_size=2)
    assert score.n == 5
    assert score == heldout_score(trainer, problems.select(range(5)), batch_size=2)
    assert trainer._metrics is before
    assert not trainer._logs["prompt"]
    trainer = sft(loaded(tiny_model), problems, str(tmp_path))
    with pytest.raises(ValueError, match="needs a trainer with rewards, GRPOTrainer or RLOOTrainer, not SFTTrainer"):
        heldout_score(trainer, problems)


def test_prompts_are_rendered_as_the_row_says(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer = sft(loaded(tiny_model), problems, str(tmp_path))
    trainer.processing_class.chat_template = (
        "{{ tools | length if tools else 0 }}{{ thinking }}{{ messages[0].content }}"
    )
    rows = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": "1+1"}],
                "tools": '[{"type": "function"}]',
                "chat_template_kwargs": {"thinking": "yes"},
            }
        ]
    )
    trainer.add_callback(probe := ShiftProbeCallback(trainer, rows, max_new_tokens=2))
    probe.on_train_begin(trainer.args, trainer.state, trainer.control)
    text = trainer.processing_class.decode(fixed_trajectories(trainer)[0].prompt_ids)
    assert text == "1yes1+1"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_responses_end_before_the_positions_do(
    kind: str, problems: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A number that is given is refused beyond them, before training; the default is what fits."""
    sizes = {"n_positions": 24} if kind == "gpt2" else {"max_position_embeddings": 24}
    small_model(kind, **sizes).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    prompts = Dataset.from_dict({"prompt": ["1+2=", "13+22="]})
    longest = max(len(make_tokenizer()(prompt)["input_ids"]) for prompt in prompts["prompt"])
    trainer = sft(str(tmp_path / "model"), problems, str(tmp_path / "out"))

    def begun(**settings: Any) -> ShiftProbeCallback:
        probe = ShiftProbeCallback(trainer, prompts, **settings)
        probe.on_train_begin(trainer.args, trainer.state, trainer.control)
        return probe

    words = rf"^The policy '.*model' reads 24 tokens; the longest prompt has {longest}, and with max_new_tokens=40 "
    with pytest.raises(ValueError, match=words):
        begun(max_new_tokens=40)
    with caplog.at_level("WARNING"):
        probe = begun()
    assert probe.max_new_tokens == 24 - longest
    assert f"responses of at most {24 - longest} tokens" in caplog.text
    assert all(len(row.completion_ids) <= 24 - longest for row in fixed_trajectories(trainer))


def test_rollouts_end_before_the_positions_do(problems: Dataset, tmp_path: Path) -> None:
    small_model("llama", max_position_embeddings=24).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    trainer = rloo(loaded(str(tmp_path / "model")), problems, str(tmp_path / "out"))
    probe = ShiftProbeCallback(trainer, Dataset.from_dict({"prompt": ["1+2=" * 5]}))
    with pytest.raises(ValueError, match=r"reads 24 tokens; .* with max_completion_length=6 a response could end"):
        probe.on_train_begin(trainer.args, trainer.state, trainer.control)


def refused(model: Any, problems: Dataset) -> str:
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller looks at the words
        check_can_be_sampled(SimpleNamespace(model=model, accelerator=accelerator), problems, "The shift probe")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_models_that_are_no_causal_lm_are_refused(problems: Dataset) -> None:
    sizes = {"vocab_size": 8, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    reward = LlamaForSequenceClassification(LlamaConfig(**sizes, num_hidden_layers=1, num_key_value_heads=2))
    assert "needs a causal LM, but the trainer's LlamaForSequenceClassification generates no" in refused(
        reward, problems
    )
    seq2seq = T5ForConditionalGeneration(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    assert "but the trainer's T5ForConditionalGeneration is an encoder-decoder model" in refused(seq2seq, problems)


def test_tools_outside_of_grpo_are_refused(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer = distillation(loaded(tiny_model), problems, str(tmp_path))
    trainer.tools = [digit_reward]
    with pytest.raises(ValueError, match="can run tools in GRPOTrainer alone, not in DistillationTrainer"):
        ShiftProbeCallback(trainer, problems)


def test_images_outside_of_rollouts_are_refused(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    pictures = Dataset.from_dict({"prompt": ["Q: "], "image": ["a.png"]})
    with pytest.raises(ValueError, match=r"passes images in GRPOTrainer and RLOOTrainer alone.* its column 'image'"):
        ShiftProbeCallback(sft(loaded(tiny_model), problems, str(tmp_path)), pictures)
    with pytest.raises(ValueError, match=r"but the trainer's processing_class is a .*, which reads none"):
        ShiftProbeCallback(grpo(loaded(tiny_model), problems, str(tmp_path)), pictures)
