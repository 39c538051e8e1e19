"""Episodes that the model plays at every evaluation: `evaluation: {play: {targets: [100, 500], episodes: 20}}`."""

from __future__ import annotations

from dataclasses import dataclass

from ....inference.evaluator import Evaluator, Result
from ..agent import Playing, beyond, check_plays, episodes_in, play_metrics


@dataclass(frozen=True, kw_only=True)
class Play(Playing, Evaluator):
    """How the model plays at every evaluation: for each return that is asked for, so many episodes; their mean returns
    are the metrics `val/return_at_TARGET`, or `val/return`."""

    def metrics(self):
        return {f"val/{name}": True for name in self.asked}

    def check(self, trained, say):
        check_plays(trained, self)
        data = episodes_in(trained)
        for line in beyond(data.about()["returns"] if data else None, self.targets):
            say(f"evaluation.play.targets: {line}")

    def run(self, trained, say):
        found = play_metrics(trained, self) if trained.processes.is_first else None
        returns = trained.processes.broadcast(found)
        return Result(metrics={f"val/{name}": value for name, value in returns.items()})
