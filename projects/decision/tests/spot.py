"""An environment whose observations are images: the column of a bright spot determines the rewarded action."""

import gymnasium
import numpy as np
from chopmix.projects.decision.recording.scripts import Agent

LASTS = 6


class Spot(gymnasium.Env):
    """Images of 8 x 12 pixels with a spot in one of six pairs of columns; its number is the action with reward 1."""

    observation_space = gymnasium.spaces.Box(0, 255, (8, 12), np.uint8)
    action_space = gymnasium.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.image(), {}

    def image(self):
        self.column, image = int(self.np_random.integers(6)), np.zeros((8, 12), np.uint8)
        image[2:6, 2 * self.column : 2 * self.column + 2] = 255
        return image

    def step(self, action):
        reward = float(action == self.column)
        self.steps += 1
        return self.image(), reward, self.steps == LASTS, False, {}


class Follows(Agent):
    """Takes the rewarded action."""

    def act(self, observation):
        return int(observation.arrays["observation"][3].argmax()) // 2


gymnasium.register("Spot-v0", Spot)
