"""The commands of `tokenshift`, one entry each: which module runs, and the dataclasses that its arguments come from.

To add a command, write a module with `main(arguments: list[str] | None) -> int` and put one line into `COMMANDS`. A
command with `arguments` gets `--help` and its early checks from their sources; one without reads its words itself.
"""

from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parents[1]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Dotted name of the module whose `main` runs.
        summary: What the command does, in one line.
        arguments: Dotted names of the dataclasses that hold its arguments; empty if `main` reads its words itself.
        launched: Whether `--launch` may start it by `accelerate launch`.
        config_holds_arguments: Whether the keys of the `--config` file are the command's arguments.
        configs: Pattern of the shipped configs that fit the command; None if none does.
        early: Dotted name of a function of the [`EarlyArguments`] that looks for more mistakes before the slow
            imports; empty if there is none.
        default_config: Name of the shipped config of a command line that has none of the options `default_unless`;
            empty if there is none.
        default_unless: Options, with their hyphens.
    """

    module: str
    summary: str
    arguments: tuple[str, ...] = ()
    launched: bool = True
    config_holds_arguments: bool = True
    configs: str | None = None
    early: str = ""
    default_config: str = ""
    default_unless: tuple[str, ...] = ()

    @property
    def script(self) -> Path:
        """The file of the module, for those that are scripts of recipes/."""
        return RECIPES / f"{self.module.rpartition('.')[2]}.py"


_RECIPES = "tokenshift.recipes"

COMMANDS = {
    "train": Command(
        f"{_RECIPES}.grpo_divweighted",
        "Train a model by GRPO with divergence-weighted advantages.",
        (
            f"{_RECIPES}.jobs.training.arguments.RecipeArguments",
            "tokenshift.trainer.config.DivergenceGRPOConfig",
            "trl.ModelConfig",
        ),
        configs="[!cer]*",
        early=f"{_RECIPES}.jobs.training.early.check_training",
        default_config="pocket.yaml",
        default_unless=("--config", "--model_name_or_path"),
    ),
    "shift": Command(
        f"{_RECIPES}.analyze_shift",
        "Find which token distributions RL moved, and how.",
        (f"{_RECIPES}.analyze_shift.AnalyzeShiftArguments",),
        early=f"{_RECIPES}.jobs.analysis.early.check_shift",
    ),
    "evolution": Command(
        f"{_RECIPES}.analyze_evolution",
        "Follow the shift over the checkpoints of a run.",
        (f"{_RECIPES}.jobs.analysis.evolution.EvolutionArguments",),
        early=f"{_RECIPES}.jobs.analysis.early.check_evolution",
    ),
    "robustness": Command(
        f"{_RECIPES}.shift_robustness",
        "Repeat the shift analysis across temperatures, top-p and policies.",
        (f"{_RECIPES}.jobs.analysis.robustness.RobustnessArguments",),
        early=f"{_RECIPES}.jobs.analysis.early.check_robustness",
    ),
    "cross": Command(
        f"{_RECIPES}.cross_sample",
        "Test by cross-sampling whether the moved tokens cause the gain.",
        (f"{_RECIPES}.jobs.analysis.cross_sampling.CrossArguments",),
        early=f"{_RECIPES}.jobs.analysis.early.check_cross",
    ),
    "compare": Command(
        f"{_RECIPES}.compare_variants",
        "Train, evaluate and compare variants over seeds.",
        (f"{_RECIPES}.jobs.comparison.arguments.CompareArguments",),
        launched=False,
        config_holds_arguments=False,
        configs="compare_*",
        early=f"{_RECIPES}.jobs.comparison.early.check_file",
    ),
    "evaluate": Command(
        f"{_RECIPES}.evaluate",
        "Measure mean@k, pass@k and majority@k of a model, or of two.",
        (f"{_RECIPES}.jobs.analysis.evaluation.EvaluationArguments",),
        configs="evaluate_*",
        early=f"{_RECIPES}.jobs.analysis.early.check_evaluation",
    ),
    "sft": Command(
        f"{_RECIPES}.sft_control",
        "Train the supervised control, up to an RL model's accuracy.",
        (f"{_RECIPES}.jobs.sft.preparation.SftControlArguments", "trl.SFTConfig", "trl.ModelConfig"),
        early=f"{_RECIPES}.jobs.sft.early.check_control",
    ),
    "reproduce": Command(
        f"{_RECIPES}.reproduce",
        "Set every statement of the paper beside one of your own runs.",
        (f"{_RECIPES}.jobs.reproduction.arguments.ReproduceArguments",),
        early=f"{_RECIPES}.jobs.reproduction.early.check_reproduction",
        launched=False,
        config_holds_arguments=False,
        configs="reproduce_*",
    ),
    "change": Command(
        f"{_RECIPES}.change_model",
        "Save a copy of a model with another config or a longer context.",
        (f"{_RECIPES}.change_model.ChangeModelArguments",),
        early=f"{_RECIPES}.command_line.early_changes.check_change",
        launched=False,
    ),
    "benchmark": Command(
        f"{_RECIPES}.benchmark",
        "Measure what tokenshift costs.",
        (f"{_RECIPES}.benchmark.BenchmarkArguments",),
        early=f"{_RECIPES}.benchmarks.early.check_benchmark",
        launched=False,
    ),
    "workspace": Command(
        f"{_RECIPES}.command_line.workspace",
        "Make a W&B workspace that shows first what matters first.",
        launched=False,
    ),
    "doctor": Command(
        f"{_RECIPES}.command_line.doctor",
        "Say what looks wrong in a training, and what to change.",
        launched=False,
    ),
    "export": Command(
        f"{_RECIPES}.command_line.export",
        "Write a table of an output folder as CSV or TSV.",
        launched=False,
    ),
    "env": Command(
        f"{_RECIPES}.command_line.environment",
        "Print versions and devices for a bug report.",
        launched=False,
    ),
}
