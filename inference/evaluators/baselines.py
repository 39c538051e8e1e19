"""A comparison with simple models after the training: is the run better than what is fitted in seconds?"""

from __future__ import annotations

from ...files.reading import DataError
from ...files.writing import make_folder, write_json
from ..baseline_table import Comparisons, compared, compared_tasks
from ..baselines import LIMIT
from ..evaluator import Evaluator, Result

FILE = "baselines.json"
"""The file with the comparison, in the folder `report` of the run."""


class Baselines(Evaluator):
    """Fits simple models of scikit-learn to the training samples and compares them with the best checkpoint on the
    validation split (`chopmix baselines`). `metric`: the metric of the comparison; null: the main metric of the task.
    `limit`: the number of seconds after which a model is stopped."""

    when = "saved"

    def __init__(self, *, metric: str | None = None, limit: float = LIMIT):
        if not limit > 0:
            raise ValueError(f"limit must be more than 0 seconds, not {limit}")
        self.metric, self.limit = metric, limit

    def check(self, trained, say):
        """Raises DataError if no task has simple models, or if a task with simple models lacks the metric."""
        compared_tasks(trained, None, self.metric)

    def run(self, trained, say):
        """A comparison that is not possible does not end the training with an error."""
        try:
            comparisons = compared(trained, metric=self.metric, limit=self.limit, say=say)
            make_folder(trained.folder / "report", trained.folder)
            content = Comparisons(comparisons=comparisons).model_dump(mode="json")
            write_json(trained.folder / "report" / FILE, content, within=trained.folder)
        except (DataError, OSError) as error:
            return Result(lines=[f"no comparison with simple models: {error}"])
        lines = [line for each in comparisons for line in (each.sentence, *each.remarks)]
        return Result(tables=[each.table() for each in comparisons], lines=lines)
