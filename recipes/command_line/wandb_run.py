"""The W&B run of a training: online where the user is logged in, offline where not, the same run after a resume."""

import os
import secrets
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.lib import wbauth

from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.products import RUN_ID_FILE
from tokenshift.trainer.policy.heldout import HeldOutScore


def start_wandb(
    output_dir: Path,
    *,
    project: str,
    entity: str | None,
    group: str | None,
    name: str | None,
    config: dict[str, Any],
    resume: bool,
) -> Any:
    """Start a run, or go on with the one whose id lies in `output_dir` if `resume`; its files go there too."""
    if "WANDB_MODE" not in os.environ and not _logged_in():
        os.environ["WANDB_MODE"] = "offline"  # without asking: a run must not wait for a login
    os.environ.setdefault("WANDB_SILENT", "true")
    id_file = output_dir / RUN_ID_FILE
    run_id = id_file.read_text().strip() if resume and id_file.is_file() else secrets.token_hex(4)
    write_whole(id_file, run_id + "\n")
    return wandb.init(
        project=project,
        entity=entity,
        group=group,
        name=name,
        config=config,
        id=run_id,
        resume="allow",
        dir=output_dir,
    )


def finish_wandb(before: HeldOutScore | None, after: HeldOutScore | None) -> str:
    """Record the held-out scores and end the run; where it is to be seen, or how to upload it."""
    run = wandb.run
    if run is None:
        return "off"
    for name, score in (("before", before), ("after", after)):
        if score is not None:
            run.summary.update({f"heldout/{name}": score.mean, f"heldout/{name}_n": score.n})
    url, mode = run.url, run.settings.mode
    # a resumed run has a folder for each launch, all with its id
    folders = Path(run.dir).parent.parent / f"offline-run-*-{run.id}"
    wandb.finish()
    if mode == "disabled":
        return "off"
    return f"offline; to upload it: wandb sync {folders}" if mode == "offline" else str(url)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return wbauth.read_netrc_auth(host=host) is not None
