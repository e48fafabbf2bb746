"""`tokenshift workspace`: a W&B workspace whose first section has the scalars to look at first.

    tokenshift workspace --entity me --project tokenshift
    tokenshift workspace --entity me --project tokenshift --dry_run     # what it would have; nothing is sent

It makes a saved view in the project, beside those that are there, and changes no run. It needs the package
wandb-workspaces, and an account that W&B is logged in to.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

NAME = "tokenshift"

PACKAGE = "wandb-workspaces"

FIGURES = ("js_histogram", "position_profile", "js_entropy_map", "percentiles")
"""Names of the probe's figures."""


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: Its title.
        metrics: The metrics that it draws as lines, or the images that it shows, by the names that W&B has.
        x: The metric of the x-axis.
        images: Whether they are images.
    """

    title: str
    metrics: tuple[str, ...]
    x: str
    images: bool = False


@dataclass(frozen=True)
class Section:
    """A section of charts, open or folded."""

    title: str
    charts: tuple[Chart, ...]
    is_open: bool = False


def workspace_sections() -> list[Section]:
    """The sections of the workspace, the first of which has the scalars to look at first."""
    from tokenshift.trainer.tracking.metrics import HEADLINE, documented_names, is_probe  # here: imports take seconds

    def line(title: str, *names: str) -> Chart:
        shown = tuple(name for documented in map(_alone, names) for name in documented_names(documented))
        return Chart(title, shown, "shift/step" if is_probe(names[0]) else "train/global_step")

    percentiles = ("p50", "p90", "p95", "p99")
    return [
        Section("At a glance", tuple(line(label, name) for label, name in HEADLINE.items()), is_open=True),
        Section(
            "Divergence and weights",
            (
                line("Percentiles of D, nats", *(f"divergence/{name}" for name in percentiles)),
                line("Noise floor and mean of D, nats", "divergence/noise_floor", "divergence/mean"),
                line("Weights", *(f"advantage_weight/{name}" for name in ("min", "mean", "max"))),
                line("Entropy by JS, nats", *(f"divergence_entropy/policy_{n}" for n in ("near_zero", "high"))),
            ),
        ),
        Section(
            "Shift probe",
            (
                line("Percentiles of truncated JS, nats", *(f"shift/own/top_p/{name}" for name in percentiles)),
                line("Percentiles of full JS, nats", *(f"shift/own/{name}" for name in percentiles)),
                line("Exactly zero, and near zero", "shift/own/top_p/frac_exact_zero", "shift/own/frac_near_zero"),
                line("Overlap with other probes", "shift/top_p/jaccard_previous", "shift/top_p/jaccard_last"),
                line("Length of responses, tokens", "shift/own/length"),
            ),
        ),
        Section(
            "Training",
            (
                line("Loss", "loss"),
                line("Gradient norm", "grad_norm"),
                line("Entropy, nats", "entropy"),
                line("Clipped", "clip_ratio/region_mean"),
                line("Rounds of dynamic sampling", "dynamic_sampling/rounds"),
            ),
        ),
        Section("Figures of the probe", tuple(_figure(name) for name in FIGURES)),
    ]


def make_workspace(entity: str, project: str, name: str = NAME) -> Any:
    """The workspace as wandb-workspaces has it, which sends nothing before its `save` is called.

    Args:
        entity: The W&B user or team.
        project: The project.
        name: The name of the saved view.

    Raises:
        ValueError: If wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ValueError(f"A workspace needs {PACKAGE}: pip install {PACKAGE}") from error

    def panel(chart: Chart) -> Any:
        if chart.images:
            return reports.MediaBrowser(title=chart.title, media_keys=list(chart.metrics))
        return reports.LinePlot(title=chart.title, x=chart.x, y=list(chart.metrics))

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            workspaces.Section(
                name=section.title, panels=[panel(chart) for chart in section.charts], is_open=section.is_open
            )
            for section in workspace_sections()
        ],
    )


def main(arguments: list[str] | None = None) -> int:
    """Make the workspace, or print what it would have.

    Args:
        arguments: The words after `tokenshift workspace`; `sys.argv`'s when None.

    Returns:
        Exit status 0; 2 after a user's mistake, or where W&B refuses.
    """
    parser = argparse.ArgumentParser(
        prog="tokenshift workspace", description="Make a W&B workspace that shows first what matters first."
    )
    parser.add_argument("--entity", help="The W&B user or team.")
    parser.add_argument("--project", default="tokenshift", help="The W&B project; tokenshift by default.")
    parser.add_argument("--name", default=NAME, help="The name of the saved view.")
    parser.add_argument("--dry_run", action="store_true", help="Print the panels; send nothing.")
    args, unused = parser.parse_known_args(arguments)
    if unused:
        return _refuse(f"{unused[0]!r} belongs to no argument; leave it out.")
    if args.dry_run:
        for section in workspace_sections():
            print(section.title)
            for chart in section.charts:
                print(f"  {chart.title:34} {', '.join(chart.metrics)}")
        return 0
    if not args.entity:
        return _refuse("--entity is missing: the W&B user or team whose project it is.")
    try:
        workspace = make_workspace(args.entity, args.project, args.name)
    except ValueError as error:
        return _refuse(str(error))
    try:
        workspace.save()
    except Exception as error:  # W&B raises its own errors, and those of the network
        from tokenshift.trainer.guard.trackers import reason_of

        return _refuse(f"W&B did not take the workspace ({reason_of(error)}); wandb login, or another --entity?")
    print(workspace.url)
    return 0


def _alone(name: str) -> dict[str, int]:
    return {name: 0}


def _figure(name: str) -> Chart:
    """A figure of the probe, of the policy's own responses."""
    return Chart(name.replace("_", " "), (f"shift/own/{name}",), "shift/step", images=True)


def _refuse(text: str) -> int:
    print(f"tokenshift workspace: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
