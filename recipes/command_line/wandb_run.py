"""The W&B run of a training: online where the user is logged in, offline where not, the same run after a resume."""

import os
import secrets
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.lib import wbauth

from tokenshift.analysis.secrets import hide_secrets
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.products import RUN_ID_FILE
from tokenshift.trainer.guard.trackers import WAITING, reason_of, tracker_errors_told
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
    tags: Sequence[str] | None = None,
) -> Any:
    """Start a run, or go on with the one whose id lies in `output_dir` if `resume`; its files go there too.

    Where W&B cannot be reached, the run is an offline one; where no run can be started at all, it is one that keeps
    nothing. Either is told in one line.
    """
    if "WANDB_MODE" not in os.environ and not _logged_in():
        os.environ["WANDB_MODE"] = "offline"  # without asking: a run must not wait for a login
    os.environ.setdefault("WANDB_SILENT", "true")
    for variable, seconds in WAITING.items():
        os.environ.setdefault(variable, seconds)
    id_file = output_dir / RUN_ID_FILE
    run_id = id_file.read_text().strip() if resume and id_file.is_file() else secrets.token_hex(4)
    with tracker_errors_told("wandb"):
        write_whole(id_file, run_id + "\n")
    names = {"project": project, "entity": entity, "group": group, "name": name}
    start = partial(
        wandb.init, **hide_secrets(names), tags=hide_secrets(tags), config=hide_secrets(config), dir=output_dir
    )
    try:
        return start(id=run_id, resume="allow")
    except Exception as error:  # W&B raises its own errors, and those of the network and the disk
        reason = reason_of(error)
    try:
        wandb.teardown()  # or its service would refuse the run's id, which it keeps for the run that did not begin
        run = start(id=run_id, resume="allow", mode="offline")
    except Exception as error:
        print(f"W&B cannot be used ({reason_of(error)}): this run is not tracked.", flush=True)
        return wandb.init(mode="disabled")
    print(f"W&B cannot be used online ({reason}): this run is tracked offline.", flush=True)
    return run


def finish_wandb(before: HeldOutScore | None, after: HeldOutScore | None) -> str:
    """Record the held-out scores and end the run; where it is to be seen, or how to upload it."""
    run = wandb.run
    if run is None:
        return "off"
    for name, score in (("before", before), ("after", after)):
        if score is not None:
            with tracker_errors_told("wandb"):
                run.summary.update({f"heldout/{name}": score.mean, f"heldout/{name}_n": score.n})
    url, mode = run.url, run.settings.mode
    # a resumed run has a folder for each launch, all with its id
    folders = Path(run.dir).parent.parent / f"offline-run-*-{run.id}"
    began = time.monotonic()
    try:
        wandb.finish()
    except Exception as error:
        return f"{reason_of(error)}; to upload what is on disk: wandb sync {Path(run.dir).parent}"
    if mode == "disabled":
        return "off"
    limit = float(os.environ.get("WANDB_FINISH_TIMEOUT") or 0)
    if mode == "online" and 0 < limit <= time.monotonic() - began:
        return f"{url}; not all of it was uploaded in time; to upload the rest: wandb sync {Path(run.dir).parent}"
    return f"offline; to upload it: wandb sync {folders}" if mode == "offline" else str(url)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return wbauth.read_netrc_auth(host=host) is not None
