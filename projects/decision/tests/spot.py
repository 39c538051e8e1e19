"""An environment whose observations are pictures: a bright spot on one of six places says what to do."""

import gymnasium
import numpy as np
from chopmix.projects.decision.environments.scripts import Agent

LASTS = 6


class Spot(gymnasium.Env):
    """Eight by twelve pixels; the column of the spot, in pairs, is the action that is rewarded with 1."""

    observation_space = gymnasium.spaces.Box(0, 255, (8, 12), np.uint8)
    action_space = gymnasium.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.picture(), {}

    def picture(self):
        self.place, shown = int(self.np_random.integers(6)), np.zeros((8, 12), np.uint8)
        shown[2:6, 2 * self.place : 2 * self.place + 2] = 255
        return shown

    def step(self, action):
        reward = float(action == self.place)
        self.steps += 1
        return self.picture(), reward, self.steps == LASTS, False, {}


class Follows(Agent):
    """Does what the spot says."""

    def act(self, seen):
        return int(seen.arrays["observation"][3].argmax()) // 2


gymnasium.register("Spot-v0", Spot)
