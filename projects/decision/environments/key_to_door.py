"""Key to door: who took the key in the first room opens the door in the third, long after he has seen the key
(Mesnard et al. 2021, arXiv:2011.09464; Chen et al. 2021, arXiv:2106.01345)."""

from __future__ import annotations

import gymnasium
import numpy as np
from jaxtyping import Int, UInt8

SIDE = 5
"""Rows and columns of a room."""
STAY = 10
"""Steps in each of the three rooms."""
EMPTY, AGENT, KEY, DOOR = range(4)
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Up, down, left, right, as rows and columns."""


class KeyToDoor(gymnasium.Env):
    """Three rooms of 5 x 5 cells, ten steps in each: in the first lies a key, the second is empty, in the third is a
    door. Who walks over the key takes it; who then reaches the door gets a reward of 1, and the episode ends. The agent
    does not see whether it has the key.

        observation   (5, 5) of 0 (empty), 1 (agent), 2 (key), 3 (door); or with `grid=False` three categories: the
                      cells of the `agent` and of the `thing` in the room, by rows from 1 (0: nothing is seen), and
                      the thing's `kind`, 0 (none), 1 (key), 2 (door)
        action        0 up, 1 down, 2 left, 3 right; walls stop it
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = gymnasium.spaces.Discrete(4)
    COLOURS = np.array([[40, 40, 40], [60, 140, 240], [240, 200, 60], [160, 90, 40]], np.uint8)

    def __init__(self, render_mode: str | None = None, grid: bool = True):
        self.render_mode, self.grid = render_mode, grid
        cells, spaces = SIDE**2, gymnasium.spaces
        sizes = {"agent": 1 + cells, "thing": 1 + cells, "kind": 3}
        ids = spaces.Dict({name: spaces.Discrete(size) for name, size in sizes.items()})
        self.observation_space = spaces.Box(0, 3, (SIDE, SIDE), np.uint8) if grid else ids

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.time, self.has_key = 0, False
        self.agent, self.thing = self._places()
        return self._observed(), {}

    def _places(self) -> Int[np.ndarray, "2 2"]:
        """Two different cells, as rows and columns: of the agent, and of the thing in the room."""
        return np.stack(np.divmod(self.np_random.choice(SIDE**2, 2, replace=False), SIDE), axis=1)

    @property
    def room(self) -> int:
        """The room that the agent is in, from 0."""
        return min(self.time // STAY, 2)

    @property
    def shows_thing(self) -> bool:
        """Whether a key or a door is seen in the room."""
        return self.room == 2 or (self.room == 0 and not self.has_key)

    def _observed(self) -> UInt8[np.ndarray, "5 5"] | dict[str, np.int64]:
        if self.grid:
            return self._cells()
        shown, kind = self.shows_thing, 1 if self.room == 0 else 2
        agent, thing = (row * SIDE + column + 1 for row, column in (self.agent, self.thing))
        found = {"agent": agent, "thing": thing * shown, "kind": kind * shown}
        return {name: np.int64(value) for name, value in found.items()}

    def _cells(self) -> UInt8[np.ndarray, "5 5"]:
        cells = np.zeros((SIDE, SIDE), np.uint8)
        if self.shows_thing:
            cells[tuple(self.thing)] = KEY if self.room == 0 else DOOR
        cells[tuple(self.agent)] = AGENT
        return cells

    def step(self, action: int):
        self.agent = np.clip(self.agent + MOVES[action], 0, SIDE - 1)
        there = (self.agent == self.thing).all()
        self.has_key |= bool(self.room == 0 and there)
        opened = bool(self.room == 2 and there and self.has_key)
        room, self.time = self.room, self.time + 1
        over = self.time == 3 * STAY
        if self.room != room:
            self.agent, self.thing = self._places()
        return self._observed(), float(opened), opened, over and not opened, {}

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        return self.COLOURS[self._cells()].repeat(32, 0).repeat(32, 1)
