"""Training with a vLLM server, by the shape of its requests: a server that speaks its protocol, without a model.

Weights go to a real server by NCCL, which this test leaves out: it counts what would be sent.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from helpers.tiny_training import SETTINGS, digit_reward

from tokenshift.trainer import DivergenceGRPOConfig, grpo
from tokenshift.trainer.dynamic_sampling.trainer import DynamicSamplingGRPOTrainer

pytestmark = pytest.mark.vllm

LOGP = -2.0
"""Log-probability that the server gives every token."""


class Server(ThreadingHTTPServer):
    """A vLLM server whose completions are digits of different lengths; it keeps every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for name, body in self.requests if name == path]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        config = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs"},
        }
        answers: dict[str, Any] = {
            "/health": {},
            "/v1/models": {"data": [{"id": "policy"}]},
            "/server_info": {"vllm_config": config},
            "/get_world_size": {"world_size": 1},
        }
        self._answer(answers[self.path.partition("?")[0]])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.server.requests.append((self.path, body))
        if self.path != "/v1/completions":
            return self._answer({"success": True})
        choices = []
        for prompt in body["prompt"]:
            for member in range(body["n"]):
                ids = [10 + (len(prompt) + member + place) % 8 for place in range(2 + member % 3)] + [2]
                names = [f"token_id:{token}" for token in ids]
                logprobs = {"tokens": names, "token_logprobs": [LOGP] * len(ids), "top_logprobs": [None] * len(ids)}
                choices.append({"prompt_token_ids": prompt, "token_ids": ids, "logprobs": logprobs})
        return self._answer({"choices": choices})

    def _answer(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_requests_of_a_training(
    server: Server, tiny_model: str, problems: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.generation.vllm_client import VLLMClient

    sent: list[list[str]] = []
    monkeypatch.setattr(grpo, "check_vllm_settings", lambda args, processes: None)  # this is no GPU
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: None)

    def send(self: Any, metadata: list[Any], parameters: Iterator[Any]) -> None:
        sent.append([name for name, _ in parameters])

    monkeypatch.setattr(VLLMClient, "update_named_params", send)
    generations: list[dict[str, Any]] = []

    class Recorder(grpo.DivergenceGRPOTrainer):
        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            outputs = super()._generate_and_score_completions(inputs)
            if self.model.training:
                generations.append(dict(outputs))
            return outputs

    assert issubclass(Recorder, DynamicSamplingGRPOTrainer)
    settings = {**SETTINGS, "temperature": 0.7, "use_vllm": True, "vllm_mode": "server"}
    settings |= {"vllm_server_base_url": server.url, "probe_steps": 2, "probe_size": 2, "output_dir": str(tmp_path)}
    trainer = Recorder(
        model=tiny_model,
        reward_funcs=digit_reward,
        args=DivergenceGRPOConfig(**settings),
        train_dataset=problems,
    )
    trainer.train()

    asked = server.asked("/v1/completions")
    training = [body for body in asked if body["n"] == 4]
    assert len(training) == 2  # generations of two updates each
    assert [len(body["prompt"]) for body in training] == [2, 2]  # each prompt once
    probes = [body for body in asked if body["n"] == 1]
    assert probes
    for body in asked:
        assert body["model"] == "policy"
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 1.0, 12)
        assert (body["logprobs"], body["return_token_ids"], body["return_tokens_as_token_ids"]) == (0, True, True)
    names = [name for name, _ in trainer.model.named_parameters()]
    assert sent
    assert all(set(update) == set(names) for update in sent)
    assert len(server.asked("/reset_prefix_cache")) == len(sent)

    means = [log["rollout/mean"] for log in trainer.state.log_history if "rollout/mean" in log]
    assert len(means) == len(generations) == 2
    for mean, generation in zip(means, generations, strict=True):
        mask = generation["completion_mask"].bool().numpy()
        difference = generation["old_per_token_logps"].numpy().astype(np.float64)[mask] - LOGP
        assert mean == pytest.approx(float(np.mean(np.exp(difference) - 1 - difference)), rel=1e-5)
    first = next(log for log in trainer.state.log_history if "divergence/max" in log)
    assert first["divergence/max"] < 1e-9  # the policy has not moved from itself
