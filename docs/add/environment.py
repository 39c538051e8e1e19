"""An environment in which agents are recorded, trained and evaluated: a light that should be on when it is dark.

chopmix record environment:Light-v0 --policy random --episodes 500 --out light
data: {dataset: {use: episodes, of: {use: folder, path: light}}}
"""

import gymnasium
import numpy as np


class Light(gymnasium.Env):
    """Observes the darkness, -1 to 1; the actions are 0 (off) and 1 (on). The reward is 1 for a right action."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        reward = float((self.darkness > 0) == bool(action))
        self.steps += 1
        return self._observe(), reward, self.steps == 8, False, {}  # observation, reward, end, cut, further facts

    def _observe(self):
        self.darkness = self.np_random.uniform(-1, 1)
        return np.array([self.darkness], np.float32)


gymnasium.register("Light-v0", Light)
