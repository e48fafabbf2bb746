"""GRPO with per-token weights on the advantages: the one change to TRL's trainer.

TRL's `_compute_loss` asks `_get_per_token_logps_and_entropies` for the log-probabilities and reads
`inputs["advantages"]` after it, in shape `(B,)` or `(B, T)`. The trainer puts the weighted advantages there in
between. So the loss stays TRL's own, whole and for every option, and with `advantage_weighting="none"` nothing is
changed at all.
"""

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from tokenshift.analysis.divergence.hidden_states import captured_hidden_states, completion_states
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.dynamic_sampling.trainer import DynamicSamplingGRPOTrainer
from tokenshift.trainer.probe.callback import ShiftProbeCallback
from tokenshift.trainer.reference import REFERENCE_HIDDEN, DistributionReference
from tokenshift.trainer.weighting.calls import sampled_divergence, token_values
from tokenshift.trainer.weighting.completion_weights import CompletionWeights
from tokenshift.trainer.weighting.controls import mean_weights, normalize_weights, shuffle_weights
from tokenshift.trainer.weighting.description import weighting_section
from tokenshift.trainer.weighting.metrics import TokenWindow
from tokenshift.trainer.weighting.tokens import make_tokens

COMPLETION_INDEX = "completion_index"
"""Key under which a generation's tensors carry each completion's index, through TRL's shuffling and splitting."""

REWARD = "reward"
"""Key under which they carry each completion's summed reward `(B,)`."""

ENTROPY = "entropy"
"""Key under which an update's loss inputs have the policy's entropies `(B, T)`."""


class DivergenceGRPOTrainer(DynamicSamplingGRPOTrainer):
    """
    [`~trl.GRPOTrainer`] whose advantages are weighted token by token by how far the policy moved there.

    The only change to the loss: `A_t` becomes `w_t * A_t`, with `w_t` of [`DivergenceGRPOConfig`], detached, on the
    completion's valid tokens (not padding, not truncated completions that are masked, not tool results). Weights
    apply in training; an evaluation's loss is TRL's. A weighting of the user's own ([`register_weighting`]) may also
    be a mask, or be added: `A_t + w_t`.

    "The batch" of `weight_control` and `normalize_weights` is what one backward pass sees, on all ranks.

    Args:
        model, reward_funcs, train_dataset, eval_dataset, processing_class, peft_config, ...:
            As for [`~trl.GRPOTrainer`].
        args ([`DivergenceGRPOConfig`]):
            Its configuration.
        probe_dataset ([`~datasets.Dataset`], *optional*):
            Problems of the shift probe, if `probe_steps` is set; `eval_dataset`, else `train_dataset`, when None.

    Raises:
        TypeError: if `args` is missing or a plain [`~trl.GRPOConfig`].
        ValueError: in training, if a function of the user's own returns what its kind does not allow.

    Logged beside TRL's metrics, exact over all ranks and all tokens since the last log:

    - `divergence/{mean,p50,p90,p95,p99,max}` (nats), `divergence/frac_near_zero`, `divergence/frac_high` (shares);
    - `divergence_entropy/{policy,reference}_{near_zero,low,middle,high}`, mean entropies (nats) of tokens by their JS,
      and `divergence_position/00..19`, mean JS (nats) by relative position, if whole distributions are compared;
    - `advantage_weight/{mean,std,min,max}`, and `advantage_weight/frac_active`, the share of weights further than
      0.01 from 1; with an additive weighting `advantage_bonus/*` instead, the share of terms further than 0.01 from 0;
    - `dynamic_sampling/{rounds,kept_share,all_right_share,all_wrong_share,filled}`, if `dynamic_sampling`.

    Source: "Sparse but Critical" (arXiv 2603.22446), section 5.
    """

    args: DivergenceGRPOConfig
    _logs: dict[str, Any]

    _tag_names = ["trl", "grpo", "tokenshift", "divergence-weighted-grpo"]
    _name = "Divergence-weighted GRPO"
    _paper = {
        "title": "Sparse but Critical: A Token-Level Analysis of Distributional Shifts in RLVR Fine-Tuning of LLMs",
        "id": "2603.22446",
        # docstyle-ignore
        "citation": """@inproceedings{meng2026sparse,
    title     = {{Sparse but Critical: A Token-Level Analysis of Distributional Shifts in RLVR Fine-Tuning of LLMs}},
    author    = {Meng and others},
    year      = 2026,
    booktitle = {The Fourteenth International Conference on Learning Representations},
    eprint    = {arXiv:2603.22446}
}""",
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: DivergenceGRPOConfig | None = None,
        *other_args: Any,
        probe_dataset: Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, DivergenceGRPOConfig):
            raise TypeError(
                f"args is a {type(args).__name__}; DivergenceGRPOTrainer needs a DivergenceGRPOConfig, which "
                "takes the same fields and the weighting's."
            )
        self._loss_inputs: dict[str, Any] | None = None  # set while TRL's training loss is being computed
        self._weighting, self._weighting_values = args.weighting, args.weighting_values
        self._divergence = args.divergence_entry
        self._window = TokenWindow(kind=self._weighting.behaviour)
        super().__init__(model, reward_funcs, args, *other_args, **kwargs)
        self._reference = (
            DistributionReference(self, args.divergence_reference)
            if args.compares_distributions and args.watches_tokens
            else None
        )
        self._completion_weights = (
            CompletionWeights(args.generation_batch_size or 0, self._weighting.behaviour.column)
            if self._weighting.function is not None and self.log_completions
            else None
        )
        if args.probe_steps is not None:
            problems = probe_dataset or self.eval_dataset or self.train_dataset
            self.add_callback(
                ShiftProbeCallback(
                    self,
                    problems,
                    probe_steps=args.probe_steps or None,
                    probe_size=args.probe_size,
                    top_p=args.probe_top_p,
                    correct_threshold=args.correct_threshold,
                )
            )

    # Weighting ---------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        if not (self.model.training and self.args.watches_tokens):
            return super()._compute_loss(model, inputs)
        self._loss_inputs = inputs = dict(inputs)  # the generation's own advantages serve its other updates too
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        if self._loss_inputs is None:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        capture: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
        if self._reference is not None:
            capture = captured_hidden_states(self.accelerator.unwrap_model(model))
        with capture as states:
            outputs = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._loss_inputs[ENTROPY] = outputs[1]
        self._weight_advantages(self._loss_inputs, outputs[0].detach(), states)
        return outputs

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        """Replace `inputs["advantages"]` `(B,)` by the weighted ones `(B, T)`, and record what the logs need.

        Args:
            inputs: TRL's, of one update.
            logps: the policy's log-probabilities of the sampled tokens `(B, T)`.
            states: its last hidden states, if the divergence is of whole distributions.
        """
        mask = inputs["completion_mask"]
        mask = (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()  # (B, T)
        old_logps = inputs.get("old_per_token_logps", logps)  # absent: the rollout policy is the current one
        update = f"the batch of update {self.state.global_step + 1}"
        valid_logps, valid_old_logps = logps[mask], old_logps[mask]  # (N,)
        statistics = {}
        if self._reference is not None:
            statistics = self._distribution_statistics(inputs, completion_states(states, mask.shape[1]), mask)
        if self._divergence.function is None:
            divergence = statistics[self._divergence_output]
        else:
            divergence = sampled_divergence(self._divergence, valid_logps, valid_old_logps, update)
        self._window.divergence.append(divergence)
        if self._weighting.function is None:
            return

        wanted = {name: statistics[output] for name, output in self._weighting.reference_statistics.items()}
        if ENTROPY in self._weighting.needs:
            wanted[ENTROPY] = inputs[ENTROPY].detach()[mask]
        advantages = inputs["advantages"]
        tokens = make_tokens(
            mask=mask,
            logps=valid_logps,
            old_logps=valid_old_logps,
            divergence=divergence,
            advantage=advantages,
            # completions of a checkpoint made before rewards were kept have none
            reward=inputs.get(REWARD, torch.full_like(advantages, torch.nan)),
            step=self.state.global_step,
            statistics=wanted,
        )
        valid_values = self._controlled(token_values(self._weighting, self._weighting_values, tokens, update))
        self._window.weights.append(valid_values)
        kind = self._weighting.behaviour
        values = torch.full_like(logps, kind.neutral, dtype=valid_values.dtype)  # (B, T)
        values[mask] = valid_values
        if self._completion_weights is not None:
            self._completion_weights.add(inputs[COMPLETION_INDEX], values, mask)
        inputs["advantages"] = kind.combine(advantages.unsqueeze(1), values)

    @property
    def _divergence_output(self) -> str:
        """The output of `token_statistics` that is the divergence of whole distributions."""
        entry = self._divergence
        name = entry.truncated if self.args.divergence_top_p < 1 else entry.statistic
        assert name is not None
        return name

    def _distribution_statistics(
        self, inputs: dict[str, Any], policy_hidden: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Outputs of `token_statistics` of the valid tokens' distributions, `(N,)` each; feeds the logs.

        Args:
            inputs: TRL's, of one update.
            policy_hidden: the policy's last hidden states `(B, T, H)`.
            mask: the valid tokens `(B, T)`, bool.
        """
        assert self._reference is not None
        outputs = {"js", "entropy_base", "entropy_rl", *self._weighting.reference_statistics.values()}
        if self._divergence.function is None:
            outputs.add(self._divergence_output)
        statistics = self._reference.statistics(
            inputs[REFERENCE_HIDDEN],
            policy_hidden,
            inputs["completion_ids"],
            mask,
            sorted(outputs),
            self.args.divergence_top_p,
        )
        position = mask.cumsum(dim=1) - 1  # (B, T), of the valid tokens among themselves
        length = mask.sum(dim=1, keepdim=True).expand_as(position)
        self._window.shift.add(
            js=statistics["js"],
            entropy_reference=statistics["entropy_base"],
            entropy_policy=statistics["entropy_rl"],
            position=position[mask],
            length=length[mask],
        )
        return statistics

    def _controlled(self, weights: torch.Tensor) -> torch.Tensor:
        """The weights `(N,)` after the control and the normalisation asked for."""
        if self.args.weight_control == "shuffle":
            weights = shuffle_weights(self.accelerator, weights, self.args.seed, self._step)
        elif self.args.weight_control == "mean":
            weights = mean_weights(self.accelerator, weights)
        return normalize_weights(self.accelerator, weights) if self.args.normalize_weights else weights

    # Logging -----------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        outputs = super()._generate_and_score_completions(inputs)
        if self._reference is not None and self.model.training:
            outputs[REFERENCE_HIDDEN] = self._reference.hidden_states(outputs)
        size = len(outputs["completion_ids"])
        if self._weighting.function is not None and self.model.training:
            rewards = self._batch_rewards[self.accelerator.process_index * size :][:size]
            outputs[REWARD] = rewards.nan_to_num(nan=0.0)
        if self._completion_weights is not None:
            self._completion_weights.start_generation(size, self.accelerator, self.model.training)
            outputs[COMPLETION_INDEX] = torch.arange(size, device=outputs["completion_ids"].device)
        return outputs

    def _load_generation_state(self, checkpoint: Path) -> None:
        super()._load_generation_state(checkpoint)
        if self._reference is not None and self._reference.kind == "old":
            self._buffered_inputs = None  # the rollout policy's LM head is in no checkpoint: new completions

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and self.args.watches_tokens:
            for name, value in self._window.metrics(self.accelerator).items():
                self._metrics["train"][name].append(value)
        if self._completion_weights is not None:
            for column, values in self._completion_weights.columns().items():
                self._logs["extra"][column] = deque(values, maxlen=self.args.generation_batch_size)
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's model card, with a section on how the advantages were weighted."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            card = Path(str(self.args.output_dir)) / "README.md"
            write_whole(card, card.read_text(encoding="utf-8") + weighting_section(self.args))
