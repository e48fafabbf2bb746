"""Logits processors of vLLM's two model runners: thin adapters to `row_steps`. vLLM is imported with this module.

They are passed to an engine as `module:class`, never as an entry point, which every engine of the environment would
load.
"""

from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as ProcessorV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as ProcessorV2

from tokenshift.analysis.vllm_engine.pair_architectures import PREFIX
from tokenshift.analysis.vllm_engine.row_steps import RowRequest, RowSteps, only_token

PROCESSORS = {"v1": f"{__name__}:StepsV1", "v2": f"{__name__}:StepsV2"}
"""The class for each model runner, as vLLM takes it."""

STEPS = RowSteps()
"""The records of this process, which the worker extension drains."""


def _policies(logits: torch.Tensor, holds_pair: bool) -> dict[str, torch.Tensor]:
    """The logits of a step by policy: both models' of a pair, or those of the one model, `policy`."""
    if not holds_pair:
        return {"policy": logits}
    from tokenshift.analysis.vllm_engine.pair_model import LOGITS

    return {name: LOGITS[name] for name in ("base", "rl")}


def _holds_pair(vllm_config: Any) -> bool:
    return str(vllm_config.model_config.architecture).startswith(PREFIX)


class StepsV1(ProcessorV1):
    """For the model runner V1: requests by their index in the batch; the position is the length of the output."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._holds_pair = _holds_pair(vllm_config)
        self._requests: dict[int, tuple[RowRequest, int, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """False: it decides which token is the most probable."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow requests that enter, leave and move."""

        def entered(
            params: Any, prompt: list[int] | None, output: list[int]
        ) -> tuple[RowRequest, int, list[int]] | None:
            request = RowRequest.from_arguments(params.extra_args)
            return None if request is None else (request, len(prompt or ()), output)

        process_dict_updates(self._requests, batch_update, entered)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave the chosen token of each row as the only one."""
        if not self._requests:
            return logits  # a warm-up
        policies = _policies(logits, self._holds_pair)
        rows = range(len(logits))
        requests = [self._requests[row][0] if row in self._requests else None for row in rows]
        return only_token(logits, STEPS(policies, requests, self._positions(len(logits))))

    def _positions(self, rows: int) -> list[int | None]:
        """The position of each row's token; None where the text so far is not read to its end."""
        at: list[int] | None = None
        if self._holds_pair:
            from tokenshift.analysis.vllm_engine.pair_model import LOGITS

            at = LOGITS["positions"].tolist()
            if len(at) != rows:
                raise ValueError(f"vLLM has moved: {len(at)} rows of logits were made, and {rows} are to be sampled.")
        positions: list[int | None] = []
        for row in range(rows):
            if row not in self._requests:
                positions.append(None)
                continue
            request, prompt_length, output = self._requests[row]
            read = at is None or at[row] + 1 == prompt_length + len(output)
            positions.append(request.offset + len(output) if read else None)
        return positions


class StepsV2(ProcessorV2):
    """For the model runner V2: requests by their slot; the position is that of the row less the prompt's length."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self._holds_pair = _holds_pair(vllm_config)
        self._states = req_states
        self._requests: dict[int, RowRequest] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a slot over; whether its rows are decided here."""
        request = RowRequest.from_arguments(sampling_params.extra_args)
        if request is None:
            self._requests.pop(req_idx, None)
        else:
            self._requests[req_idx] = request
        return request is not None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Leave the chosen token of each row as the only one."""
        slots = ctx.expanded_idx_mapping.tolist()
        requests = [self._requests.get(slot) for slot in slots]
        if not any(request is not None for request in requests):
            return logits
        prompts, prefills = self._states.prompt_len.np, self._states.prefill_len.np
        positions: list[int | None] = []
        for slot, request, at in zip(slots, requests, ctx.pos.tolist(), strict=True):
            # a row of an unfinished prefill lies before the last token that was there when the request was begun anew
            if request is None or at + 1 < int(prefills[slot]):
                positions.append(None)
            else:
                positions.append(request.offset + at + 1 - int(prompts[slot]))
        return only_token(logits, STEPS(_policies(logits, self._holds_pair), requests, positions))
