"""Configuration of divergence-weighted GRPO."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

import torch
from trl import GRPOConfig

from tokenshift.analysis.sampling.correctness import check_correct_threshold
from tokenshift.analysis.secrets import hide_secrets, remember_secrets
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.trainer.acceleration import check_acceleration
from tokenshift.trainer.guard.config_numbers import LARGEST, check_config_numbers
from tokenshift.trainer.guard.trackers import check_trackers
from tokenshift.trainer.policy.rollout_settings import check_generation_kwargs
from tokenshift.trainer.resume.process_group import start_cpu_group
from tokenshift.trainer.weighting.calls import try_out
from tokenshift.trainer.weighting.options import checked_options, parse_options
from tokenshift.trainer.weighting.registry import DIVERGENCES, WEIGHTINGS, Divergence, Weighting

SEQUENCE_LEVEL_LOSSES = ("luspo", "vespo")
PER_SEQUENCE = "RLOO has one ratio a sequence, so weights of single tokens have no meaning there."
RLOO_SETTINGS = ("normalize_advantages", "reward_clip_range")  # which GRPOConfig has not
TOKEN_LEVEL_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
KNOWN_LOSSES = TOKEN_LEVEL_LOSSES + SEQUENCE_LEVEL_LOSSES

COUNT_SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "generation_batch_size",
    "max_completion_length",
)


@dataclass
class DivergenceGRPOConfig(GRPOConfig):
    r"""
    Configuration of [`DivergenceGRPOTrainer`]: TRL's [`~trl.GRPOConfig`] and the fields below.

    The advantage of token t becomes `w_t * A_t`. With `advantage_weighting="sigmoid"`,
    `w_t = 1 + divergence_scale * (sigmoid(divergence_alpha * D_t) - 1/2)` (arXiv 2603.22446, section 5).

    Parameters:
        advantage_weighting (`str`, *optional*, defaults to `"sigmoid"`):
            `"sigmoid"` as above; `"low_prob"`, `w_t = 1 + c - c * pi_old(token)` with `c = low_prob_coef`
            (arXiv 2603.22117); `"random_share"`, a mask that keeps a random share of the batch's valid tokens, the
            control of `top_entropy_quantile`; `"none"`, stock GRPO, bit for bit; or the name or dotted path
            (`my_weights.saturated`) of a function registered by [`register_weighting`].
        weighting_options (`dict`, *optional*):
            Options of a weighting of your own: its keyword-only arguments, a mapping or its JSON. Those of the shipped
            ones are the fields below, and `share` of `"random_share"`, 0.2 by default.
        divergence (`str`, *optional*, defaults to `"k3"`):
            D_t in nats. At the sampled token, estimators of KL(pi_old‖pi_theta), which cost nothing: `"k3"`, `"k1"`,
            `"k2"`. Between whole next-token distributions: `"js"`, `"forward_kl"` = KL(reference‖pi_theta),
            `"reverse_kl"` = KL(pi_theta‖reference). Or the name or dotted path of a function of the sampled tokens
            registered by [`register_divergence`].
        divergence_reference (`str`, *optional*, defaults to `"old"`):
            `"old"`, the policy that produced the rollouts; `"base"`, the model before RL, for whole distributions
            only, the same for every `beta`. In full fine-tuning it is the model that the policy's config names, a
            second model in memory, as for `beta > 0`. With PEFT it is the policy as training began: a new LoRA is
            disabled, and any other adapter is kept as it began, in memory and in `output_dir/base_adapter.pt`.
        divergence_top_p (`float`, *optional*, defaults to `1.0`):
            Truncate both distributions to this top-p before taking their `"js"`, in (0, 1].
        reference_cache_gib (`float`, *optional*, defaults to `16.0`):
            GiB of host memory per process in which the reference's hidden states of a generation's valid tokens are
            kept, pinned where there is an accelerator; `tokenshift train --dry_run` says what they take. Where they
            take more, they are not kept, and the base makes one more forward pass for every micro-batch; `0` always
            does so. Those of the rollout policy are always kept.
        divergence_alpha (`float`, *optional*, defaults to `100.0`):
            Slope, in 1/nats. Positive boosts high-divergence tokens, negative low-divergence ones. Below about 10 the
            sigmoid is flat inside the clip range and the method does next to nothing.
        divergence_scale (`float`, *optional*, defaults to `1.0`):
            Range of the weights, s >= 0. `0` leaves every weight at 1 (a null test).
        low_prob_coef (`float`, *optional*, defaults to `0.2`):
            c of `"low_prob"`, >= 0.
        weight_control (`str`, *optional*, defaults to `"none"`):
            `"shuffle"` puts the same weights on random valid tokens of the batch; `"mean"` sets each to their mean.
            A mask's values and an additive term are treated alike.
        normalize_weights (`bool`, *optional*, defaults to `False`):
            Divide the weights by their mean over the batch. An additive term has no such mean.
        dynamic_sampling (`bool`, *optional*, defaults to `False`):
            DAPO's (arXiv 2503.14476): prompts whose completions are all right or all wrong are replaced by the next
            ones, so that the whole batch teaches, whatever other rewards such as a length penalty say. The prompts,
            one sequence that is set by `seed`, are recorded in `output_dir/dynamic_sampling.jsonl`. `max_steps` counts
            updates; `num_train_epochs` counts as without, though more prompts are used.
        dynamic_sampling_metric (`str`, *optional*):
            The name of the reward that filters; the first of the reward functions when None. A group stays where right
            completions (reward of at least `correct_threshold`) and wrong ones differ. Where neither a name nor a
            `correct_threshold` is given, it stays where rewards differ, so that a graded first reward, which no
            threshold divides, filters by equal values.
        dynamic_sampling_max_rounds (`int`, *optional*, defaults to `10`):
            Generations a batch, the first one included; what is still missing then stays with equal rewards.
        expected_updates_per_generation (`int`, *optional*):
            Updates that one generation of completions is meant to be used for. They follow from the batch sizes and,
            with a `generation_batch_size`, from the number of processes; another number is refused at the start.
        log_divergence (`bool`, *optional*, defaults to `False`):
            Log `divergence/*` also with `advantage_weighting="none"`. Otherwise they are always logged. With whole
            distributions come `divergence_entropy/*` and `divergence_position/*`.
        probe_steps (`int`, *optional*):
            Updates between shift probes ([`ShiftProbeCallback`]); 0 probes at the start, at saves and at the end
            alone; None does not probe.
        probe_size (`int`, *optional*, defaults to `32`):
            Problems of the probe.
        probe_top_p (`float`, *optional*, defaults to `0.7`):
            Top-p of the probe's truncated JS, in (0, 1].
        correct_threshold (`float`, *optional*, defaults to `1.0`):
            Responses are correct, in the probe and in dynamic sampling, where their first reward (in dynamic sampling
            that of `dynamic_sampling_metric`) is at least this.

    On a machine without an accelerator `use_cpu` is set, and `bf16` is off unless it is asked for.

    Raises:
        ValueError: for an unknown name, a number that is not finite or out of range, a sequence-level loss, a
            combination in which the weights cannot vary, or a function of your own that takes other arguments, raises
            on a small batch or returns what its kind does not allow.
    """

    advantage_weighting: str = field(
        default="sigmoid",
        metadata={
            "help": "How a token's advantage is weighted: sigmoid, low_prob, random_share, none, or a dotted path."
        },
    )
    weighting_options: dict | str | None = field(
        default=None,
        metadata={"help": "Options of a weighting of your own, its keyword arguments, as JSON or a mapping."},
    )
    divergence: str = field(
        default="k3",
        metadata={
            "help": "Divergence: k3, k1, k2 at the sampled token, or the dotted path of a function; js, forward_kl, "
            "reverse_kl of distributions."
        },
    )
    divergence_reference: Literal["old", "base"] = field(
        default="old", metadata={"help": "Compared with: old (the rollout policy) or base (the model before RL)."}
    )
    divergence_top_p: float = field(
        default=1.0, metadata={"help": "Truncate both distributions to this top-p before taking their js."}
    )
    reference_cache_gib: float = field(
        default=16.0,
        metadata={
            "help": "GiB of host memory for the reference's hidden states; where they take more, the base's are "
            "computed anew for every micro-batch."
        },
    )
    divergence_alpha: float = field(
        default=100.0, metadata={"help": "Slope of the sigmoid; > 0 boosts high divergence, < 0 low divergence."}
    )
    divergence_scale: float = field(default=1.0, metadata={"help": "Range s of the sigmoid weights."})
    low_prob_coef: float = field(default=0.2, metadata={"help": "c in 1 + c - c * pi_old(token)."})
    weight_control: Literal["none", "shuffle", "mean"] = field(
        default="none", metadata={"help": "Control: shuffle the weights over tokens, or set each to the mean."}
    )
    normalize_weights: bool = field(default=False, metadata={"help": "Divide the weights by their batch mean."})
    dynamic_sampling: bool = field(
        default=False, metadata={"help": "Replace prompts whose completions are all right or all wrong."}
    )
    dynamic_sampling_metric: str | None = field(
        default=None,
        metadata={"help": "Name of the reward by which dynamic sampling filters; the first one when not given."},
    )
    dynamic_sampling_max_rounds: int = field(
        default=10, metadata={"help": "Generations a batch with dynamic sampling, the first one included."}
    )
    expected_updates_per_generation: int | None = field(
        default=None,
        metadata={"help": "Updates per generation, checked against what batch sizes and processes give."},
    )
    log_divergence: bool = field(
        default=False, metadata={"help": "Log divergence/* also with advantage_weighting none."}
    )
    probe_steps: int | None = field(
        default=None,
        metadata={"help": "Updates between shift probes; 0: only at the start, saves and the end; none if not given."},
    )
    probe_size: int = field(default=32, metadata={"help": "Problems of the shift probe."})
    probe_top_p: float = field(default=0.7, metadata={"help": "Top-p of the shift probe's truncated JS."})
    correct_threshold: float = field(
        default=CORRECT,
        metadata={"help": "Lowest first reward of a correct response, in the probe and in dynamic sampling."},
    )

    def __post_init__(self) -> None:
        remember_secrets(vars(self))
        # Names and numbers first: they need nothing that TRL derives.
        self._check_names()
        check_trackers(self.report_to)
        self._check_numbers()
        self._check_options()
        self._check_reference()
        self._check_dynamic_sampling()
        if not torch.accelerator.is_available():  # where TRL's defaults would not start
            self.use_cpu = True
            self.bf16 = bool(self.bf16)
        given_generation_batch = self.generation_batch_size is not None
        start_cpu_group(self)
        super().__post_init__()
        check_config_numbers(self)  # again: options given as JSON are mappings by now
        remember_secrets(vars(self))
        self._check_updates_per_generation(given_generation_batch)
        check_generation_kwargs(self)
        check_acceleration(self)
        if self.weighting.function is not None:
            self._check_token_level()
            self._check_weights_vary()
        try_out(self.weighting, self.weighting_values, self.divergence_entry)

    def to_dict(self) -> dict[str, Any]:
        """The fields as trackers and model cards are given them, without secrets."""
        return hide_secrets(super().to_dict())

    def __getstate__(self) -> dict[str, Any]:
        """The state that `training_args.bin` holds: every field, with secrets hidden."""
        return {name: hide_secrets(value, name) for name, value in self.__dict__.items()}

    def __getattr__(self, name: str) -> Any:
        if name in RLOO_SETTINGS:
            raise AttributeError(
                f"{type(self).__name__} has no {name}: it is for DivergenceGRPOTrainer. {PER_SEQUENCE}"
            )
        return object.__getattribute__(self, name)  # which raises

    @property
    def weighting(self) -> Weighting:
        """The registry's entry of `advantage_weighting`."""
        return WEIGHTINGS.get(self.advantage_weighting)

    @property
    def weighting_values(self) -> dict[str, Any]:
        """The values of all options of the weighting, by name."""
        weighting = self.weighting
        given = parse_options(self.weighting_options)
        values = checked_options(given, weighting.options, weighting.name, weighting.fields)
        return values | {option: float(getattr(self, name)) for option, name in weighting.fields.items()}

    @property
    def divergence_entry(self) -> Divergence:
        """The registry's entry of `divergence`."""
        return DIVERGENCES.get(self.divergence)

    @property
    def watches_tokens(self) -> bool:
        """Whether divergences are computed, to weight by or to log."""
        return self.weighting.function is not None or self.log_divergence

    @property
    def updates_per_generation(self) -> float:
        """Optimizer updates made on one generation of completions."""
        steps = self.steps_per_generation or 0  # set by GRPOConfig.__post_init__
        return steps * self.num_iterations / self.gradient_accumulation_steps

    @property
    def compares_distributions(self) -> bool:
        """Whether whole distributions are compared, by the divergence or by what the weighting needs.

        It takes both models' hidden states.
        """
        return self.divergence_entry.function is None or bool(self.weighting.reference_statistics)

    @property
    def has_old_logps(self) -> bool:
        """Whether the policy in training can differ from the one that produced the rollouts (TRL's own condition)."""
        steps = self.steps_per_generation or 0
        return self.gradient_accumulation_steps % (steps * self.num_iterations) != 0

    def _check_names(self) -> None:
        hints = get_type_hints(type(self))
        WEIGHTINGS.get(self.advantage_weighting)
        DIVERGENCES.get(self.divergence)
        for name in ("divergence_reference", "weight_control"):
            allowed = get_args(hints[name])
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; choose one of {', '.join(allowed)}.")
        if self.loss_type not in KNOWN_LOSSES:
            raise ValueError(f"loss_type={self.loss_type!r} is not known; choose one of {', '.join(KNOWN_LOSSES)}.")

    def _check_numbers(self) -> None:
        names = ("divergence_alpha", "divergence_scale", "low_prob_coef", "divergence_top_p", "reference_cache_gib")
        for name in names:
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r} must be a finite number.")
            if abs(value) > LARGEST:
                raise ValueError(f"{name}={value!r} is beyond {LARGEST:g}, where float32 overflows.")
        check_config_numbers(self)
        if self.probe_steps is not None and self.probe_steps < 0:
            raise ValueError(f"probe_steps={self.probe_steps!r} must be at least 0.")
        if self.probe_size < 1:
            raise ValueError(f"probe_size={self.probe_size!r} must be at least 1.")
        if not 0 < self.probe_top_p <= 1:
            raise ValueError(f"probe_top_p={self.probe_top_p!r} must lie in (0, 1].")
        check_correct_threshold(self.correct_threshold)
        if self.reference_cache_gib < 0:
            raise ValueError(f"reference_cache_gib={self.reference_cache_gib!r} must be >= 0.")
        for name in ("divergence_scale", "low_prob_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be >= 0; divergence_alpha carries the sign.")

    def _check_options(self) -> None:
        weighting = self.weighting
        self.weighting_options = parse_options(self.weighting_options) or None  # read from JSON once
        values = self.weighting_values
        mistake = weighting.check(values, self.divergence_entry) if weighting.check is not None else None
        if mistake:
            raise ValueError(mistake)

    def _check_reference(self) -> None:
        if not 0 < self.divergence_top_p <= 1:
            raise ValueError(f"divergence_top_p={self.divergence_top_p!r} must lie in (0, 1].")
        if self.divergence_top_p < 1 and self.divergence_entry.truncated is None:
            raise ValueError(
                f"divergence_top_p={self.divergence_top_p!r} needs divergence='js': {self.divergence} has no meaning "
                "on truncated distributions, whose supports differ."
            )
        if self.divergence_reference == "base" and self.divergence_entry.function is not None:
            raise ValueError(
                f"divergence_reference='base' needs divergence js, forward_kl or reverse_kl: {self.divergence} "
                "estimates a KL from tokens that its reference sampled, and these come from the rollout policy."
            )

    def _check_dynamic_sampling(self) -> None:
        rounds: Any = self.dynamic_sampling_max_rounds
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise ValueError(f"dynamic_sampling_max_rounds={rounds!r} must be a whole number of at least 1.")
        if not self.dynamic_sampling:
            return
        if rounds == 1:
            raise ValueError(
                "dynamic_sampling_max_rounds=1 leaves no round to replace a prompt in; use 2 or more, for example 10, "
                "or dynamic_sampling=False."
            )
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError(
                f"multi_objective_aggregation={self.multi_objective_aggregation!r} normalises over the batch before "
                "rewards are summed, which dynamic_sampling cannot do for replaced prompts; use 'sum_then_normalize'."
            )

    def _check_updates_per_generation(self, given_generation_batch: bool) -> None:
        """Refuse batch sizes from which another number of updates follows than the expected one.

        Args:
            given_generation_batch: whether the user gave `generation_batch_size`, and not `steps_per_generation`.
        """
        expected: Any = self.expected_updates_per_generation
        if expected is None:
            return
        if isinstance(expected, bool) or not isinstance(expected, int) or expected < 1:
            raise ValueError(f"expected_updates_per_generation={expected!r} must be a whole number of at least 1.")
        if self.updates_per_generation == expected:
            return
        size, micro_batch = self.generation_batch_size or 0, self.per_device_train_batch_size * self.world_size
        if given_generation_batch:
            steps = size * self.num_iterations / (expected * micro_batch)
            way = f"gradient_accumulation_steps={steps:g}"
        else:
            steps = expected * self.gradient_accumulation_steps / self.num_iterations
            way = f"steps_per_generation={steps:g}"
        if steps < 1 or steps % 1:
            way = f"batch sizes whose product in the brackets is {size * self.num_iterations / expected:g}"
        raise ValueError(
            f"expected_updates_per_generation={expected}, but {self.updates_per_generation:g} follow from "
            f"generation_batch_size={size} * num_iterations={self.num_iterations} / (per_device_train_batch_size="
            f"{self.per_device_train_batch_size} * {self.world_size} processes * gradient_accumulation_steps="
            f"{self.gradient_accumulation_steps}); with this number of processes give {way}."
        )

    def _check_token_level(self) -> None:
        if self.importance_sampling_level != "token":
            raise ValueError(
                f"importance_sampling_level={self.importance_sampling_level!r} gives one ratio a sequence, so weights "
                "of single tokens have no meaning there; use 'token' or advantage_weighting='none'."
            )
        if self.loss_type in SEQUENCE_LEVEL_LOSSES:
            raise ValueError(
                f"loss_type={self.loss_type!r} weighs whole sequences, so weights of single tokens have no meaning "
                "there; use grpo, bnpo, dr_grpo, dapo, cispo or sapo, or advantage_weighting='none'."
            )

    def _check_weights_vary(self) -> None:
        if self.weight_control == "mean" and self.normalize_weights:
            raise ValueError(
                "weight_control='mean' with normalize_weights=True makes every weight 1; drop one of them."
            )
        weighting = self.weighting
        if self.weight_control == "shuffle" and weighting.shuffled:
            raise ValueError(f"weight_control='shuffle' changes nothing: {weighting.name} is random already; drop it.")
        if self.normalize_weights and not weighting.behaviour.normalizes:
            raise ValueError(
                f"normalize_weights=True divides by the mean, which is near 0 for a term that is added; "
                f"{weighting.name} is additive: set normalize_weights=False."
            )
        if weighting.varies_at_first_update:
            return
        if self.divergence_reference == "old" and not self.has_old_logps:
            advice = (
                "" if weighting.fields else " Or register the weighting with varies_at_first_update=True, if it does."
            )
            raise ValueError(
                f"divergence_reference='old' with {self.updates_per_generation:g} update per generation "
                f"(steps_per_generation={self.steps_per_generation} * num_iterations={self.num_iterations} / "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}) compares the policy with itself: "
                "every divergence is 0 and every weight 1. Set num_iterations or steps_per_generation higher, "
                f"for example steps_per_generation={2 * self.gradient_accumulation_steps}.{advice}"
            )
