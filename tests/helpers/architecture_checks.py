"""The parts of the project on a model of any architecture, each part against the model's own logits.

The oracle of all of them is one forward pass for each prefix, of one row, without padding and without a cache: the
last row of its logits is what the model says about the next token.
"""

import copy
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from helpers.architectures import perturbed, tiny_model
from helpers.pocket_models import BASE
from helpers.tiny_training import SETTINGS
from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.evaluation.loaded_models import evaluate
from tokenshift.analysis.evaluation.responses import Grade
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.scoring import score_trajectories
from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.grpo import DivergenceGRPOTrainer

TEXTS = ("1+2=", "12+345=", "7*8+1=", "9=")
LENGTH = 6  # tokens of a response at most
EXACT = 1e-3  # nats between the project's log-probabilities or divergences and the oracle's
SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=LENGTH, seed=3)


class WrongError(AssertionError):
    """The project gave another value than the model's own logits."""


@dataclass
class Subject:
    """A pair of models of one architecture, the second a moved copy of the first; see `subject_of`."""

    model_type: str
    base: Any
    rl: Any
    tokenizer: Any
    requests: list[Request]
    folder: Path
    _rows: dict[tuple[str, tuple[int, ...]], torch.Tensor] = field(default_factory=dict)

    def row(self, which: str, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities `(V,)`, float64, of the token after `ids` by `base` or `rl`."""
        key = (which, tuple(ids))
        if key not in self._rows:
            self._rows[key] = next_token(getattr(self, which), ids)
        return self._rows[key]


def subject_of(model_type: str, folder: Path) -> Subject:
    """The pair of an architecture; `folder` is where its base is saved when a check needs it on disk."""
    base = tiny_model(model_type)
    base.generation_config.eos_token_id = 2
    base.generation_config.pad_token_id = 0
    rl = perturbed(copy.deepcopy(base), 0.03)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    requests = [Request((number, 0), encode_prompt(tokenizer, text)) for number, text in enumerate(TEXTS)]
    return Subject(model_type, base, rl, tokenizer, requests, folder)


@torch.no_grad()
def next_token(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities `(V,)`, float64, of the next token."""
    training = model.training
    model.eval()
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([list(ids)], device=device), **options).logits[0, -1]
    model.train(training)
    return torch.log_softmax(logits.double(), dim=-1)


def js(p: torch.Tensor, q: torch.Tensor) -> float:
    """Jensen-Shannon divergence, nats, of two rows of log-probabilities."""
    mixed = torch.logsumexp(torch.stack([p, q]), dim=0) - np.log(2)
    return float((p.exp() * (p - mixed) + q.exp() * (q - mixed)).sum() / 2)


def agree(name: str, values: Any, expected: Any, tolerance: float = EXACT) -> None:
    """Raise `WrongError` unless two lists of numbers are the same within a tolerance."""
    got, wanted = np.asarray(values, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if got.shape != wanted.shape:
        raise WrongError(f"{name}: {got.shape} values for {wanted.shape}")
    error = np.abs(got - wanted).max(initial=0.0)
    if not error <= tolerance:
        raise WrongError(f"{name} off by {error:.3g}")


# The parts ---------------------------------------------------------------------------------------------------------


def sampled(subject: Subject, which: str) -> list[list[int]]:
    """The responses that `TransformersGenerator` should give."""
    responses = []
    for request in subject.requests:
        ids: list[int] = []
        while len(ids) < LENGTH and 2 not in ids:
            logp = subject.row(which, request.prompt_ids + ids).float().unsqueeze(0)
            ids.append(int(coupled_draw(logp, [request.row], [len(ids)], **SAMPLING.draw)))
        responses.append(ids)
    return responses


def crossed(subject: Subject, threshold: float) -> list[list[int]]:
    """The responses that `cross_sample` should give: RL's draw where JS is above the threshold, else the base's."""
    responses = []
    for request in subject.requests:
        ids: list[int] = []
        while len(ids) < LENGTH and 2 not in ids:
            rows = [subject.row(which, request.prompt_ids + ids) for which in ("base", "rl")]
            row = rows[int(js(*rows) > threshold)]
            ids.append(int(coupled_draw(row.float().unsqueeze(0), [request.row], [len(ids)], **SAMPLING.draw)))
        responses.append(ids)
    return responses


def check_scoring(subject: Subject) -> None:
    """`score_trajectories`: log-probabilities of both models and JS, of responses of unequal length in one batch."""
    completions = [[8, 9, 10, 11, 2], [5, 5, 60], [70], [3, 12, 33, 7, 8, 8]]
    trajectories = [
        Trajectory(request.row[0], 0, request.prompt_ids, completion)
        for request, completion in zip(subject.requests, completions, strict=True)
    ]
    table = score_trajectories(subject.base, subject.rl, trajectories, subject.tokenizer)
    expected: dict[str, list[float]] = {"logp_base": [], "logp_rl": [], "js": []}
    for trajectory in trajectories:
        for position, token in enumerate(trajectory.completion_ids):
            prefix = trajectory.prompt_ids + trajectory.completion_ids[:position]
            p, q = subject.row("base", prefix), subject.row("rl", prefix)
            expected["logp_base"].append(float(p[token]))
            expected["logp_rl"].append(float(q[token]))
            expected["js"].append(js(p, q))
    for name, values in expected.items():
        agree(name, table[name].to_pylist(), values)


def check_sampling(subject: Subject) -> None:
    """`TransformersGenerator` in one batch of unequal prompts."""
    responses = TransformersGenerator(subject.rl, subject.tokenizer, SAMPLING)(subject.requests)
    if responses != sampled(subject, "rl"):
        raise WrongError(f"sampled {responses}, not {sampled(subject, 'rl')}")


def check_engine(engine: str) -> Callable[[Subject], None]:
    """`cross_sample` by an engine, in one batch of unequal prompts."""

    def check(subject: Subject) -> None:
        rows = [subject.row(which, subject.requests[0].prompt_ids) for which in ("base", "rl")]
        threshold = js(*rows) * 0.9
        responses = cross_sample(
            subject.base,
            subject.rl,
            subject.tokenizer,
            subject.requests,
            plan=Intervention("js", threshold),
            sampling=SAMPLING,
            engine=engine,
        )
        tokens, wanted = [response.completion_ids for response in responses], crossed(subject, threshold)
        if tokens != wanted:
            raise WrongError(f"decoded {tokens}, not {wanted}")

    return check


def check_evaluation(subject: Subject) -> None:
    """`evaluate` of loaded models: the texts that are graded are those of the responses."""
    graded: list[str] = []

    def grade(rows: list[int], texts: list[str]) -> list[Grade]:
        graded.extend(texts)
        return [Grade(True, True, None, None) for _ in rows]

    evaluate(
        {"rl": subject.rl},
        subject.tokenizer,
        list(TEXTS),
        grade,
        sampling=SAMPLING,
        samples=1,
        resamples=10,
    )
    expected = [subject.tokenizer.decode(ids, skip_special_tokens=True) for ids in sampled(subject, "rl")]
    if sorted(graded) != sorted(expected):
        raise WrongError(f"graded {graded}, not {expected}")


class _Watched(DivergenceGRPOTrainer):
    """Compares the divergence of each update's tokens with the oracle's."""

    compared = 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.rollout_policy = self.base_policy if self.args.divergence_reference == "base" else self.copied()
        return super()._generate_and_score_completions(inputs)

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if not self.args.watches_tokens:
            return loss
        policy = self.accelerator.unwrap_model(model)
        expected = []
        for row in range(len(inputs["prompt_ids"])):
            prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist()
            completion = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()].tolist()
            for position, token in enumerate(completion):
                now = next_token(policy, prompt + completion[:position])
                before = next_token(self.rollout_policy, prompt + completion[:position])
                ratio = float(now[token] - before[token])
                expected.append(js(before, now) if self.args.divergence == "js" else np.expm1(ratio) - ratio)
        divergence = self._token_logs.window.divergence[-1].detach().double().numpy()
        agree(self.args.divergence, divergence, expected, EXACT + 1e-3 * max(expected, default=0))
        _Watched.compared += len(expected)
        return loss

    def copied(self) -> Any:
        """The policy as it is now: a model that no wrapper of the trainer's has touched."""
        copied = copy.deepcopy(self.base_policy)
        copied.load_state_dict(self.accelerator.unwrap_model(self.model).state_dict())
        return copied


def reward(completions: list[str], **columns: Any) -> list[float]:
    """Differs within every group."""
    return [float(index % 4) for index in range(len(completions))]


def _settings(out: Path, **more: Any) -> dict[str, Any]:
    small = {"max_completion_length": 4, "max_steps": 2, "learning_rate": 1e-3, "disable_dropout": True}
    return SETTINGS | small | {"output_dir": str(out)} | more


def _saved(subject: Subject) -> str:
    folder = subject.folder / "base"
    if not folder.exists():
        subject.base.save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)
    return str(folder)


def _trainer(trainer_class: Any, config_class: Any, subject: Subject, out: Path, **more: Any) -> Any:
    trainer = trainer_class(
        model=_saved(subject),
        reward_funcs=reward,
        args=config_class(**_settings(out, **more)),
        train_dataset=Dataset.from_dict({"prompt": list(TEXTS)}),
        processing_class=subject.tokenizer,
    )
    # some models are not loaded as they were saved (Youtu's embedding of padding becomes 0)
    trainer.base_policy = AutoModelForCausalLM.from_pretrained(_saved(subject), attn_implementation="eager").eval()
    return trainer


def check_training(divergence: str, reference: str) -> Callable[[Subject], None]:
    """Two updates of `DivergenceGRPOTrainer`: the divergence of each token."""

    def check(subject: Subject) -> None:
        before = _Watched.compared
        with tempfile.TemporaryDirectory(dir=subject.folder) as out:
            settings = {"divergence": divergence, "divergence_reference": reference}
            _trainer(_Watched, DivergenceGRPOConfig, subject, Path(out), **settings).train()
        if _Watched.compared == before:
            raise WrongError("no token was compared")

    return check


def check_stock_training(subject: Subject) -> None:
    """Two updates of TRL's own trainer; where it fails, ours cannot do better."""
    with tempfile.TemporaryDirectory(dir=subject.folder) as out:
        _trainer(GRPOTrainer, GRPOConfig, subject, Path(out)).train()


def check_probe(subject: Subject) -> None:
    """The probe's table after two updates: JS and log-probabilities of its tokens by base and policy."""
    settings = {"advantage_weighting": "none", "probe_steps": 2, "probe_size": 4}
    with tempfile.TemporaryDirectory(dir=subject.folder) as out:
        trainer = _trainer(_Watched, DivergenceGRPOConfig, subject, Path(out), **settings)
        with patch("tokenshift.trainer.probe.callback.draw_probe_figures"):  # slow, and not what is checked
            trainer.train()
        policy = trainer.copied()
        rows = pq.read_table(Path(out) / "shift" / f"step_{trainer.state.global_step:06d}.parquet").to_pylist()
    prompts = [request.prompt_ids for request in subject.requests]
    expected: dict[str, list[float]] = {"logp_base": [], "logp_rl": [], "js": []}
    prefix: list[int] = []
    for row in rows:
        if row["position"] == 0:
            prefix = list(prompts[row["problem_id"]])
        p, q = next_token(trainer.base_policy, prefix), next_token(policy, prefix)
        expected["logp_base"].append(float(p[row["token_id"]]))
        expected["logp_rl"].append(float(q[row["token_id"]]))
        expected["js"].append(js(p, q))
        prefix.append(row["token_id"])
    for name, values in expected.items():
        agree(name, [row[name] for row in rows], values)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "scoring": check_scoring,
    "sampling": check_sampling,
    "cross-sampling, lockstep": check_engine("lockstep"),
    "cross-sampling, draft": check_engine("draft"),
    "evaluation": check_evaluation,
    "training, k3": check_training("k3", "old"),
    "training, js of the base": check_training("js", "base"),
    "probe": check_probe,
}
"""The columns of the table."""
