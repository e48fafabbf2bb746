"""Arguments of cross-sampling, and what can be looked at before a model is loaded."""

from dataclasses import dataclass, field
from typing import Any

from tokenshift.analysis.cross_sampling.criteria import SHIPPED_CRITERIA
from tokenshift.analysis.cross_sampling.criterion_registry import check_threshold, named_criterion, rehearse
from tokenshift.analysis.cross_sampling.engines import ENGINES
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.cross_sampling.pilot import read_thresholds
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, ENDS
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.models import model_ends
from tokenshift.recipes.jobs.analysis.shift import ShiftArguments, ShiftJob, prepare_shift, row_settings

BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)

SWEPT = ("directions", "criteria", "epsilons", "budgets", "seeds", "most", "gammas", "resamples")
"""Settings that may differ when a run is gone on with: rows of other policies do not depend on them."""


@dataclass
class CrossArguments(ShiftArguments):
    """
    Parameters:
        directions (`list[str]`):
            `forward` (the base decodes, RL intervenes) and `backward` (the other way).
        criteria (`list[str]`):
            Criteria of where the intervention draws, by name or dotted path, with options in brackets behind it;
            `none` and `all` are always there.
        epsilons (`list[float]`, *optional*):
            Thresholds, for each of the criteria.
        budgets (`list[float]`, *optional*):
            Wanted shares of intervened tokens, for which thresholds are found; a row of them when neither these nor
            epsilons are given.
        seeds (`list[int]`):
            Seeds of the responses; numbers are pooled over them.
        most (`int`, *optional*):
            Effective replacements per response at most.
        gammas (`list[float]`):
            The intervention draws from `(1 + gamma) log intervention - gamma log primary`.
        engine (`str`):
            `draft` or `lockstep`, which give the same responses.
        pilot (`int`):
            Problems on which thresholds for budgets are found, with the seed `seed`.
        resamples (`int`):
            Resamples of the bootstrap.
    """

    dataset_split: str | None = field(
        default=None, metadata={"help": "Split; by default one not trained on, pocket's `analysis`."}
    )
    seed: int = field(default=0, metadata={"help": "Of the pilot's responses; those that count have --seeds."})
    directions: list[str] = field(default_factory=lambda: list(DIRECTIONS), metadata={"help": "forward, backward."})
    criteria: list[str] = field(
        default_factory=lambda: ["js", "random"],
        metadata={
            "help": f"Of {', '.join(SHIPPED_CRITERIA)}, the last two always; or dotted paths of functions of yours."
        },
    )
    epsilons: list[float] | None = field(
        default=None,
        metadata={
            "help": "Thresholds, the same for each of the criteria; random's rate is 1 minus it. Budgets match rates."
        },
    )
    budgets: list[float] | None = field(
        default=None,
        metadata={
            "help": f"Wanted shares of intervened tokens; without them and epsilons {' '.join(map(str, BUDGETS))}."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Of the responses; pooled."})
    most: int | None = field(default=None, metadata={"help": "Effective replacements a response at most."})
    gammas: list[float] = field(
        default_factory=lambda: [0.0], metadata={"help": "Above 0 extrapolates beyond the intervention."}
    )
    engine: str = field(default="draft", metadata={"help": f"{' or '.join(ENGINES)}."})
    pilot: int = field(default=64, metadata={"help": "Problems on which thresholds for budgets are found."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/cross", metadata={"help": "Where results go."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_vllm:
            raise ValueError("use_vllm=True cannot be: cross-sampling needs both models' whole distributions.")
        for name in ("directions", "criteria", "seeds", "gammas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty.")
        if unknown := [direction for direction in self.directions if direction not in DIRECTIONS]:
            raise ValueError(f"directions names {unknown[0]!r}; known are {', '.join(DIRECTIONS)}.")
        self.criteria = [named_criterion(criterion).name for criterion in self.criteria]
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} is not known; choose {' or '.join(ENGINES)}.")
        if self.epsilons is None and self.budgets is None:
            self.budgets = list(BUDGETS)
        if wrong := [budget for budget in self.budgets or () if not 0 < budget < 1]:
            raise ValueError(f"budgets has {wrong[0]}; shares of tokens lie in (0, 1), and 0 and 1 are always there.")
        if wrong := [seed for seed in self.seeds if not 0 <= seed < 2**63]:
            raise ValueError(f"seeds has {wrong[0]}, which must be at least 0 and below 2**63.")
        if self.most is not None and self.most >= 2**31:
            raise ValueError(f"most={self.most} must be below 2**31; leave it out for any number.")
        for criterion in self.swept:
            for epsilon in self.epsilons or ():
                check_threshold(criterion, epsilon)
        for gamma in self.gammas:
            Intervention("all", 0.0, self.most, gamma)  # checks both
        for name in ("pilot", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = super().without_effect(values)
        reasons["batch_tokens"] = "cross-sampling scores no responses; batch_size says how many are sampled at once."
        if not self.swept:
            reason = "criteria names none and all alone, which have no threshold; name another, or leave it out."
            reasons |= dict.fromkeys(("epsilons", "budgets", "most", "pilot", "seed"), reason)
        elif not self.budgets:
            reason = "it is of the pilot, which finds thresholds for budgets; give budgets, or leave it out."
            reasons |= dict.fromkeys(("pilot", "seed"), reason)
        return reasons

    @property
    def swept(self) -> list[str]:
        """The criteria that have a threshold, each once."""
        return [criterion for criterion in dict.fromkeys(self.criteria) if criterion not in ENDS]


def prepare(arguments: list[str] | None = None) -> ShiftJob:
    """Parse, check, find the models, load the problems.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((CrossArguments,), arguments)[0]
    job = prepare_shift(args)
    if not model_ends(job.base) | model_ends(job.rl):
        raise ValueError(
            f"base_model={args.base_model!r} and rl_model={args.rl_model!r} have no end token: no response would "
            "end. Set eos_token_id in a generation_config.json, or the tokenizer's eos_token."
        )
    vocabulary = min(source.config.get_text_config().vocab_size for source in (job.base, job.rl))
    for criterion in args.swept:
        rehearse(named_criterion(criterion), vocabulary)
    open_folder(job, row_settings(job, *SWEPT))
    read_thresholds(job.folder)  # a damaged file is named before a model is loaded
    return job
