"""The model plays episodes at every evaluation: `evaluation: {play: {targets: [100, 500], episodes: 20}}`."""

from __future__ import annotations

from dataclasses import dataclass

from ....inference.evaluator import Evaluator, Result
from ..agent import Playing, check_plays, episodes_in, play_metrics, target_warnings


@dataclass(frozen=True, kw_only=True)
class Play(Playing, Evaluator):
    """Plays `episodes` episodes for each target return at every evaluation. The mean returns are the metrics
    `val/return_at_TARGET`, or `val/return` if `targets` is empty."""

    def metrics(self):
        return {f"val/{name}": True for name in self.metric_targets}

    def check(self, trained, say):
        check_plays(trained, self)
        dataset = episodes_in(trained)
        for line in target_warnings(dataset.about()["returns"] if dataset else None, self.targets):
            say(f"evaluation.play.targets: {line}")

    def run(self, trained, say):
        played = play_metrics(trained, self) if trained.processes.is_first else None
        returns = trained.processes.broadcast(played)
        return Result(metrics={f"val/{name}": value for name, value in returns.items()})
