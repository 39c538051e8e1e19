"""A data set that a user defines outside the package: rewards that also an untrained model reaches."""

from chopmix.projects.preferences.datasets.rewarded_arithmetic import RewardedArithmetic
from chopmix.projects.preferences.rewards import Rewarded


class Long(Rewarded):
    """The reward is the length of the answer."""

    def reward(self, sample, answer):
        return float(len(answer))


class LongAnswers(RewardedArithmetic):
    """Cross-modal arithmetic in which long answers are rewarded."""

    @property
    def rule(self):
        return Long(every=self.every, answers=self.answers, temperature=self.temperature)
