"""GRPO with per-token weights on the advantages: the one change to TRL's trainer.

TRL's `_compute_loss` asks `_get_per_token_logps_and_entropies` for the log-probabilities and reads
`inputs["advantages"]` after it, in shape `(B,)` or `(B, T)`. The trainer puts the weighted advantages there in
between. So the loss stays TRL's own, whole and for every option, and with `advantage_weighting="none"` nothing is
changed at all.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.utils import get_config_model_id

from tokenshift.analysis.divergence.hidden_states import captured_hidden_states, completion_states, evaluation_mode
from tokenshift.analysis.divergence.token_statistics import NOT_FINITE
from tokenshift.analysis.registry import UserFunctionError
from tokenshift.analysis.storage.own_code import needs_own_code, own_code_text
from tokenshift.trainer.acceleration import ASYNC
from tokenshift.trainer.config import PER_SEQUENCE, DivergenceGRPOConfig
from tokenshift.trainer.dynamic_sampling.trainer import DynamicSamplingGRPOTrainer
from tokenshift.trainer.guard.guarded_updates import GuardedUpdates
from tokenshift.trainer.guard.update_guard import DIVERGENCE, LOGPS, WEIGHT
from tokenshift.trainer.model_card import CARD_FILE, complete_card
from tokenshift.trainer.model_names import check_model_name, unreachable_model
from tokenshift.trainer.policy.context import check_policy_context, check_vllm_context
from tokenshift.trainer.policy.padded_positions import settle_positions
from tokenshift.trainer.policy.requirements import check_text_alone
from tokenshift.trainer.policy.rollout_mismatch import ROLLOUT, rollout_mismatch
from tokenshift.trainer.policy.rollout_settings import check_folder_settings
from tokenshift.trainer.policy.trl_log_probabilities import check_log_probabilities
from tokenshift.trainer.policy.vllm_settings import check_vllm_length, check_vllm_settings
from tokenshift.trainer.precision import AUTOCAST, PrecisionCheck
from tokenshift.trainer.probe.callback import ShiftProbeCallback
from tokenshift.trainer.reference import REFERENCE_HIDDEN, DistributionReference, valid_tokens
from tokenshift.trainer.watched_rewards import WatchedRewards, check_rewards
from tokenshift.trainer.weighting.calls import sampled_divergence, token_values
from tokenshift.trainer.weighting.completion_weights import CompletionWeights
from tokenshift.trainer.weighting.controls import mean_weights, normalize_weights, shuffle_weights
from tokenshift.trainer.weighting.description import weighting_section
from tokenshift.trainer.weighting.noise_floor import ROUNDING, rounded_anew
from tokenshift.trainer.weighting.randomness import Randomness, describe_randomness
from tokenshift.trainer.weighting.token_logs import TokenLogs
from tokenshift.trainer.weighting.tokens import make_tokens

COMPLETION_INDEX = "completion_index"
"""Key under which a generation's tensors carry each completion's index, through TRL's shuffling and splitting."""

REWARD = "reward"
"""Key under which they carry each completion's summed reward `(B,)`."""

OLD_LOGPS = "undropped_old_logps"
"""Key under which they carry the rollout policy's log-probabilities `(B, T)` without dropout, if it has dropout."""

IMAGE_INPUTS = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles"),
    *("image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)
"""Keys of a generation that TRL gives to a forward pass beside the tokens."""

ROLLOUT_HEAD_FILES = "rollout_head_{}.pt"
"""Files of a checkpoint that hold the rollout policy's LM head, where its states are compared with: one per node."""

ENTROPY = "entropy"
"""Key under which an update's loss inputs have the policy's entropies `(B, T)`."""


class DivergenceGRPOTrainer(GuardedUpdates, WatchedRewards, DynamicSamplingGRPOTrainer):
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
        ValueError: if a model's name stands for none; if the model has no positions for `max_completion_length`, or
            if its folder has settings that would change what is sampled; in training, if it has none for a prompt
            and that, if its logits are not finite, or if a function of the user's own returns what its kind does not
            allow.
        NonFiniteUpdateError: in training, on all ranks before an update whose loss or gradients are not finite.

    Logged beside TRL's metrics, exact over all ranks and all tokens since the last log:

    - `divergence/{mean,p50,p90,p95,p99,max}` (nats), `divergence/frac_near_zero`, `divergence/frac_high` (shares);
    - `divergence_entropy/{policy,reference}_{near_zero,low,middle,high}`, mean entropies (nats) of tokens by their JS,
      and `divergence_position/00..19`, mean JS (nats) by relative position, if whole distributions are compared;
    - `divergence/noise_floor`, mean |D| (nats) of the policy from itself at the start: rounding alone;
    - `divergence/non_finite_share`, where there are infinite or NaN values, which the others leave out;
    - `rollout/{mean,p50,p90,p95,p99,max}` (nats) and shares as above, of KL(engine || trainer) as k3 at the sampled
      tokens, where vLLM or a rollout function says with which log-probabilities it sampled;
    - `rewards/NAME/non_finite`, the number of completions that a reward function gave NaN, an infinite number or
      one beyond 1e18, where there are any;
    - `rewards/unscored_share`, the share of completions that no reward function gave a reward, where there are any;
    - `advantage_weight/{mean,std,min,max}`, and `advantage_weight/frac_active`, the share of weights further than
      0.01 from 1; with an additive weighting `advantage_bonus/*` instead, the share of terms further than 0.01 from 0;
    - `dynamic_sampling/{rounds,kept_share,all_right_share,all_wrong_share,filled,returned}`, if `dynamic_sampling`.

    Divergences, and all that a weighting looks at, are without dropout: where a forward pass in training draws random
    numbers, they come from one more forward pass per update in eval mode, and one per generation.

    It is told once, in one line: dropout; trained weights in half precision without float32 masters; a mean divergence
    that is not clear of the noise floor; a base that is not the policy before the first update; and a weighting that
    changed nothing over a whole logging window.

    Source: "Sparse but Critical" (arXiv 2603.22446), section 5.
    """

    args: DivergenceGRPOConfig
    _logs: dict[str, Any]
    not_kept = on_host = (REFERENCE_HIDDEN,)

    card_base: str | None = None
    """The base model's name in the model card; that of the model's config when None."""
    card_section: str = ""
    """Markdown at the end of the model card."""

    _tag_names = ["trl", "grpo", "tokenshift", "divergence-weighted-grpo"]
    _name = "Divergence-weighted GRPO"
    _paper = {
        "title": "Sparse but Critical: A Token-Level Analysis of Distributional Shifts in RLVR Fine-Tuning of LLMs",
        "id": "2603.22446",
        # docstyle-ignore
        "citation": """@inproceedings{meng2026sparse,
    title     = {{Sparse but Critical: A Token-Level Analysis of Distributional Shifts in RLVR Fine-Tuning of LLMs}},
    author    = {Meng, Haoming and Huang, Kexin and Wei, Shaohang and Ma, Chiyu and Yang, Shuo and Wang, Xue and
                 Wang, Guoyin and Ding, Bolin and Zhou, Jingren},
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
            kind = type(args).__name__
            reason = PER_SEQUENCE if kind.startswith("RLOO") else ASYNC if kind.startswith("AsyncGRPO") else ""
            raise TypeError(
                f"args is a {type(args).__name__}; DivergenceGRPOTrainer needs a DivergenceGRPOConfig, which "
                f"takes the same fields and the weighting's. {reason}".rstrip()
            )
        self._logps_checked = False  # whether TRL's log-probabilities are known to be the model's own
        self._in_training_loss = False  # while TRL's training loss is being computed
        self._loss_inputs: dict[str, Any] | None = None  # its inputs, where divergences are computed
        self._weighting, self._weighting_values = args.weighting, args.weighting_values
        self._divergence = args.divergence_entry
        self._token_logs = TokenLogs(args)
        self._randomness = Randomness(torch.device("cpu"))
        check_rewards(reward_funcs)
        check_vllm_settings(args, args.world_size)
        check_vllm_length(args)
        check_model_name(model)
        try:
            super().__init__(model, reward_funcs, args, *other_args, **kwargs)
        except OSError as error:
            if (told := unreachable_model(model, error)) is None:
                raise
            raise ValueError(told) from error
        except ValueError as error:
            if not needs_own_code(error):
                raise
            raise ValueError(own_code_text(f"The model {model!r}, or one that belongs to it,")) from error
        check_policy_context(self)
        check_vllm_context(self.accelerator.unwrap_model(self.model).config, args)
        check_folder_settings(getattr(self.model, "generation_config", None), args, type(self.model).__name__)
        if args.compares_distributions and args.watches_tokens:
            check_text_alone(self)
        self._randomness = Randomness(self.accelerator.device)
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
        self.add_callback(PrecisionCheck(self))
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
        self._in_training_loss = self.model.training
        if self.model.training and self.args.watches_tokens:
            self._loss_inputs = inputs = dict(inputs)  # the generation's own advantages serve its other updates too
            if self._reference is not None and inputs.get(REFERENCE_HIDDEN) is None:
                inputs[REFERENCE_HIDDEN] = self._reference.micro_batch_states(inputs)
        try:
            return super()._compute_loss(model, inputs)
        except UserFunctionError as error:
            raise UserFunctionError(f"{error} {self.guard.account()}") from error
        finally:
            self._in_training_loss, self._loss_inputs = False, None

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        with self._randomness.watched() if self.args.watches_tokens else nullcontext():
            if self._loss_inputs is None:
                outputs = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
                if self._in_training_loss:
                    self.guard.see(LOGPS, outputs[0])
                return outputs
            outputs, states = self._captured_logps(model, *args, **kwargs)
            self.guard.see(LOGPS, outputs[0], valid_tokens(self._loss_inputs))
        measured = outputs
        if self._randomness.present:
            self._token_logs.tell("dropout", lambda: describe_randomness(self.accelerator.unwrap_model(self.model)))
            with torch.no_grad(), evaluation_mode(self.model):
                measured, states = self._captured_logps(self.model, *args, **kwargs)
        self._loss_inputs[ENTROPY] = measured[1]
        self._weight_advantages(self._loss_inputs, measured[0].detach(), states)
        if not self._token_logs.knows_noise_floor(self.state.log_history):
            policy, dtype = self.accelerator.unwrap_model(self.model), self._computing_dtype
            with torch.no_grad(), evaluation_mode(self.model), rounded_anew(policy, dtype):
                again, states_again = self._captured_logps(self.model, *args, **kwargs)
            self._measure_rounding(self._loss_inputs, (measured[0].detach(), again[0]), (states, states_again))
        return outputs

    def _captured_logps(
        self, model: Any, *args: Any, **kwargs: Any
    ) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
        """TRL's log-probabilities, and the last hidden states if whole distributions are compared."""
        capture: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
        if self._reference is not None:
            capture = captured_hidden_states(self.accelerator.unwrap_model(model))
        with capture as states:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs), states

    @property
    def _computing_dtype(self) -> torch.dtype:
        """The type that the policy computes in."""
        return AUTOCAST.get(self.accelerator.mixed_precision, self.model.dtype)

    def _measure_rounding(
        self,
        inputs: dict[str, Any],
        logps: tuple[torch.Tensor, torch.Tensor],
        states: tuple[list[torch.Tensor], list[torch.Tensor]],
    ) -> None:
        """Count the divergences between two forward passes of one policy, which differ by rounding.

        Args:
            inputs: TRL's, of one update.
            logps: the log-probabilities `(B, T)` of both.
            states: the last hidden states of both, if the divergence is of whole distributions.
        """
        mask = valid_tokens(inputs)
        if self._divergence.function is not None:
            values = sampled_divergence(self._divergence, logps[1][mask], logps[0][mask], "the trial of its rounding")
        else:
            assert self._reference is not None
            first, second = (completion_states(captured, mask.shape[1])[mask] for captured in states)
            name, ids = self._divergence_output, inputs["completion_ids"][mask]
            reference, top_p = self._reference, self.args.divergence_top_p
            values = _or_nan(
                lambda: reference.policy_statistics(first, second, ids, [name], top_p), [name], logps[0][mask]
            )[name]
        self._token_logs.noise_floor.add(values, ROUNDING)

    def _undropped_logps(self, generation: dict[str, Any]) -> torch.Tensor:
        """The policy's log-probabilities `(B, T)` of a generation's completions, in eval mode; no gradients."""
        ids = torch.cat([generation["prompt_ids"], generation["completion_ids"]], dim=1)  # (B, P + T)
        mask = torch.cat([generation["prompt_mask"], generation["completion_mask"]], dim=1)
        images = {name: generation[name] for name in IMAGE_INPUTS if name in generation}
        length, size = generation["completion_ids"].shape[1], self.args.per_device_train_batch_size
        with torch.no_grad(), evaluation_mode(self.model):
            return super()._get_per_token_logps_and_entropies(
                self.model, ids, mask, length, batch_size=size, **images
            )[0]

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        """Replace `inputs["advantages"]` `(B,)` by the weighted ones `(B, T)`, and record what the logs need.

        Args:
            inputs: TRL's, of one update.
            logps: the policy's log-probabilities of the sampled tokens `(B, T)`.
            states: its last hidden states, if the divergence is of whole distributions.
        """
        mask = valid_tokens(inputs)  # (B, T)
        old_logps = inputs.get("old_per_token_logps", logps)  # absent: the rollout policy is the current one
        old_logps = inputs.get(OLD_LOGPS, old_logps)
        update = f"the batch of update {self.state.global_step + 1}"
        valid_logps, valid_old_logps = logps[mask], old_logps[mask]  # (N,)
        statistics = {}
        if self._reference is not None:
            hidden = completion_states(states, mask.shape[1])
            statistics = self._distribution_statistics(inputs, hidden, mask, valid_logps)
        if self._divergence.function is None:
            divergence = statistics[self._divergence_output]
        else:
            divergence = sampled_divergence(self._divergence, valid_logps, valid_old_logps, update)
        self.guard.see(DIVERGENCE, divergence)
        assert self.optimizer is not None
        self._token_logs.add_divergence(divergence, self.state.global_step, self.optimizer)
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
        self.guard.see(WEIGHT, valid_values)
        self._token_logs.window.add("weights", valid_values)
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
        self, inputs: dict[str, Any], policy_hidden: torch.Tensor, mask: torch.Tensor, logps: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Outputs of `token_statistics` of the valid tokens' distributions, `(N,)` each; feeds the logs.

        Args:
            inputs: TRL's, of one update.
            policy_hidden: the policy's last hidden states `(B, T, H)`.
            mask: the valid tokens `(B, T)`, bool.
            logps: the policy's log-probabilities of the valid tokens `(N,)`, as TRL computed them.
        """
        assert self._reference is not None
        outputs = {"js", "entropy_base", "entropy_rl", *self._weighting.reference_statistics.values()}
        if self._divergence.function is None:
            outputs.add(self._divergence_output)
        compute = partial(
            self._reference.statistics,
            inputs[REFERENCE_HIDDEN],
            policy_hidden,
            inputs["completion_ids"],
            mask,
            sorted(outputs),
            self.args.divergence_top_p,
            logps,
        )
        statistics = _or_nan(compute, outputs, logps)
        position = mask.cumsum(dim=1) - 1  # (B, T), of the valid tokens among themselves
        length = mask.sum(dim=1, keepdim=True).expand_as(position)
        self._token_logs.window.shift.add(
            js=statistics["js"],
            entropy_reference=statistics["entropy_base"],
            entropy_policy=statistics["entropy_rl"],
            position=position[mask],
            length=length[mask],
        )
        return statistics

    def _controlled(self, weights: torch.Tensor) -> torch.Tensor:
        """The weights `(N,)` after the control and the normalisation asked for."""
        if self.args.weight_control == "shuffle" or self._weighting.shuffled:
            weights = shuffle_weights(self.accelerator, weights, self.args.seed, self._step)
        if self.args.weight_control == "mean":
            weights = mean_weights(self.accelerator, weights)
        return normalize_weights(self.accelerator, weights) if self.args.normalize_weights else weights

    # Logging -----------------------------------------------------------------------------------------------------

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        tokenized = super()._tokenize_prompts(prompts)
        lengths = [len(ids) for ids in tokenized[0]]
        check_policy_context(self, lengths)
        check_vllm_length(self.args, lengths)
        return tokenized

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._logps_checked:
            check_log_probabilities(self)
            settle_positions(self, self.ref_model, self._reference.base if self._reference is not None else None)
            self._logps_checked = True
        if self.model.training:
            self.guard.forget_rewards()
            buffered: Any = self._buffered_inputs or []  # of the last generation, which has been trained on
            for micro_batch in buffered:
                micro_batch.pop(REFERENCE_HIDDEN, None)
        outputs = super()._generate_and_score_completions(inputs)
        if self.model.training:
            mismatch = rollout_mismatch(outputs, valid_tokens(outputs))
            if mismatch is not None:
                self._token_logs.window.add(ROLLOUT, mismatch)
        if self._reference is not None and self.model.training:
            states = self._reference.hidden_states(outputs, self.args.reference_cache_gib)
            if states is not None:
                outputs[REFERENCE_HIDDEN] = states
        if self.model.training and self.args.watches_tokens:
            if self._randomness.present and "old_per_token_logps" in outputs:
                outputs[OLD_LOGPS] = self._undropped_logps(outputs)
            self._token_logs.start_generation(self.state.global_step)
        size = len(outputs["completion_ids"])
        if self._weighting.function is not None and self.model.training:
            rewards = self._batch_rewards[self.accelerator.process_index * size :][:size]
            outputs[REWARD] = rewards.nan_to_num(nan=0.0)
        if self._completion_weights is not None:
            self._completion_weights.start_generation(size, self.accelerator, self.model.training)
            outputs[COMPLETION_INDEX] = torch.arange(size, device=outputs["completion_ids"].device)
        return outputs

    def _save_more(self, checkpoint: Path) -> None:
        super()._save_more(checkpoint)
        if not self._is_inside_generation or self._reference is None or self._reference.kind != "old":
            return
        if self.accelerator.is_local_main_process:
            self._reference.save_head(checkpoint / ROLLOUT_HEAD_FILES.format(self.accelerator.process_index))

    def _load_generation_state(self, checkpoint: Path) -> None:
        super()._load_generation_state(checkpoint)
        self._token_logs.resume()
        if self._buffered_inputs is None or self._reference is None or self._reference.kind != "old":
            return
        heads = sorted(checkpoint.glob(ROLLOUT_HEAD_FILES.format("*")))
        if heads:
            self._reference.load_head(heads[0])
        else:  # a checkpoint of an earlier version: new completions
            self._buffered_inputs = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training:
            metrics = self._reward_metrics()
            metrics |= self._token_logs.metrics(self.accelerator, self.state, self._computing_dtype)
            for name, value in metrics.items():
                self._metrics["train"][name].append(value)
        if self._completion_weights is not None:
            for column, values in self._completion_weights.columns().items():
                self._logs["extra"][column] = deque(values, maxlen=self.args.generation_batch_size)
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's model card, with the base's name, a section on the weighting of advantages, and `card_section`."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            base = self.card_base or get_config_model_id(self.accelerator.unwrap_model(self.model).config)
            card = Path(str(self.args.output_dir)) / CARD_FILE
            complete_card(card, base, weighting_section(self.args) + self.card_section)


def _or_nan(
    compute: Callable[[], dict[str, torch.Tensor]], names: Iterable[str], logps: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return what `compute` returns, or NaN for every token of `logps` `(N,)` where hidden states are not finite.

    An error on one rank would leave the others waiting; the update guard stops all of them.
    """
    try:
        return compute()
    except ValueError as error:
        if str(error) != NOT_FINITE:
            raise
        return dict.fromkeys(names, torch.full_like(logps, torch.nan))
