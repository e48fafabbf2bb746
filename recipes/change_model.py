"""Save a copy of a model whose config has other values, such as a longer context.

    python recipes/change_model.py --model pocket --output_dir models/pocket_512 \\
        --model_config_overrides '{"max_position_embeddings": 512}'
    python recipes/change_model.py --model some/model --output_dir models/longer \\
        --model_config_overrides '{"rope_theta": 40000.0}'

Trainings, rollouts by vLLM, evaluations and analyses that name the new folder all read the new config. The weights are
the model's own, and share the disk with it where that is possible.
"""

from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.changed_models import save_changed_model
from tokenshift.recipes.inputs.overrides import read_overrides


@dataclass
class ChangeModelArguments:
    """
    Parameters:
        model (`str`), model_revision (`str`, *optional*):
            `pocket`, `smollm2`, a folder or a hub name, and its revision.
        model_config_overrides (`dict[str, Any]`):
            Values of the model's `config.json` by name, as JSON.
        trust_remote_code (`bool`):
            Whether code that comes with the model may run, for a model whose config is of a kind of its own.
        output_dir (`str`):
            The new folder.
    """

    model: str = field(default="pocket", metadata={"help": "The model: pocket, smollm2, a folder or a hub name."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of a hub model."})
    model_config_overrides: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Values of config.json, as JSON: '{\"max_position_embeddings\": 512}'."},
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that comes with the model, which can do anything here."}
    )
    output_dir: str = field(default="models/changed", metadata={"help": "The new folder."})

    def __post_init__(self) -> None:
        self.model_config_overrides = read_overrides(self.model_config_overrides)
        self.output_dir = str(user_path(self.output_dir, "output_dir"))


def run(args: ChangeModelArguments) -> None:
    """Print where the model is, and what is new about it."""
    assert isinstance(args.model_config_overrides, dict)
    changes = ", ".join(f"{name}={value!r}" for name, value in args.model_config_overrides.items())
    print(f"{args.output_dir}: {args.model} with {changes}")


def prepare(arguments: list[str] | None = None) -> ChangeModelArguments:
    """Parse the arguments, and save the model: whatever is wrong with it is the user's mistake."""
    (args,) = parse_into((ChangeModelArguments,), arguments)
    save_changed_model(
        args.model,
        args.model_config_overrides,
        Path(args.output_dir),
        args.model_revision,
        trust_remote_code=args.trust_remote_code,
    )
    return args


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run, "Stopped; nothing was saved.")


if __name__ == "__main__":
    sys.exit(main())
