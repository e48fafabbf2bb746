"""The outcomes by which variants of a training can be compared."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenshift.analysis.comparison.curves import trapezoid_mean
from tokenshift.analysis.comparison.results import CellResult, mean_accuracy


@dataclass(frozen=True)
class Outcome:
    """A number of a trained model by which variants are compared.

    Attributes:
        key: Its name in the rows of a comparison's summary.
        words: What it is, for headings and axes.
        definition: One sentence for the page, with `{reward}`, the name of the learning curve's reward, and `{level}`,
            what a logged value of it is.
        number: The number of a model, a share; None where the model's files do not hold what it needs.
        averages_training: Whether it is an average over the training, in which a late jump counts by its duration.
    """

    key: str
    words: str
    definition: str
    number: Callable[[CellResult], float | None]
    averages_training: bool


OUTCOMES: dict[str, Outcome] = {
    "learning_area": Outcome(
        key="learning_area",
        words="area under the learning curve",
        definition="The mean over updates of {reward}, {level} of the completions in training; each logged "
        "value counts by the number of updates for which it holds, from the log before it to the log before the next.",
        number=lambda cell: None if cell.learning is None else cell.learning.area,
        averages_training=True,
    ),
    "held_out_area": Outcome(
        key="held_out_area",
        words="area under the held-out curve",
        definition="The mean over updates of the accuracy of the probe's own responses to held-out problems, by the "
        "trapezoidal rule; it needs three probes or more.",
        number=lambda cell: trapezoid_mean(cell.probed),
        averages_training=True,
    ),
    "final_accuracy": Outcome(
        key="accuracy",
        words="final accuracy",
        definition="The accuracy of the trained model on the evaluation's problems.",
        number=lambda cell: mean_accuracy(cell.correct),
        averages_training=False,
    ),
}
"""By the name that a comparison's file and its summary have for them."""

DEFAULT_OUTCOME = "learning_area"
"""The outcome where none is named: a jump late in a training, which single seeds make, changes it little."""

FINAL_ACCURACY = "final_accuracy"
"""The outcome that every evaluated model has."""

AREAS = [name for name, outcome in OUTCOMES.items() if outcome.averages_training]
"""The outcomes that stand beside the accuracy, which has a table of its own."""
