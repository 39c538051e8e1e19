"""Key to door: an agent that takes the key in the first room can open the door in the third room, many steps later
(Mesnard et al. 2021, arXiv:2011.09464; Chen et al. 2021, arXiv:2106.01345)."""

from __future__ import annotations

import gymnasium
import numpy as np
from jaxtyping import Int, UInt8

SIDE = 5
"""The number of rows and of columns of a room."""
STAY = 10
"""The number of steps in each of the three rooms."""
EMPTY, AGENT, KEY, DOOR = range(4)
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""The moves up, down, left and right, as changes of row and column."""


class KeyToDoor(gymnasium.Env):
    """Three rooms of 5 x 5 cells, with ten steps in each. The first room contains a key, the second is empty, and the
    third contains a door. The agent takes the key by entering its cell. If it has the key and enters the cell of the
    door, it gets a reward of 1 and the episode ends. It does not observe whether it has the key.

        observation   (5, 5) of 0 (empty), 1 (agent), 2 (key), 3 (door); or with `grid=False` three categories: the
                      cells of the `agent` and of the `thing` in the room, numbered by rows from 1 (0: there is no
                      thing), and the `kind` of the thing: 0 (none), 1 (key), 2 (door)
        action        0 up, 1 down, 2 left, 3 right; the agent stays in its cell if there is a wall
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
        self.agent, self.thing = self._random_cells()
        return self._observation(), {}

    def _random_cells(self) -> Int[np.ndarray, "2 2"]:
        """Returns two different random cells as (row, column): the cell of the agent, and the cell of the key or
        door."""
        return np.stack(np.divmod(self.np_random.choice(SIDE**2, 2, replace=False), SIDE), axis=1)

    @property
    def room(self) -> int:
        """The number of the current room, from 0."""
        return min(self.time // STAY, 2)

    @property
    def shows_thing(self) -> bool:
        """Whether the current room shows a key or a door."""
        return self.room == 2 or (self.room == 0 and not self.has_key)

    def _observation(self) -> UInt8[np.ndarray, "5 5"] | dict[str, np.int64]:
        if self.grid:
            return self._cells()
        shown, kind = self.shows_thing, 1 if self.room == 0 else 2
        agent, thing = (row * SIDE + column + 1 for row, column in (self.agent, self.thing))
        values = {"agent": agent, "thing": thing * shown, "kind": kind * shown}
        return {name: np.int64(value) for name, value in values.items()}

    def _cells(self) -> UInt8[np.ndarray, "5 5"]:
        cells = np.zeros((SIDE, SIDE), np.uint8)
        if self.shows_thing:
            cells[tuple(self.thing)] = KEY if self.room == 0 else DOOR
        cells[tuple(self.agent)] = AGENT
        return cells

    def step(self, action: int):
        self.agent = np.clip(self.agent + MOVES[action], 0, SIDE - 1)
        reached = (self.agent == self.thing).all()
        self.has_key |= bool(self.room == 0 and reached)
        opened = bool(self.room == 2 and reached and self.has_key)
        room, self.time = self.room, self.time + 1
        over = self.time == 3 * STAY
        if self.room != room:
            self.agent, self.thing = self._random_cells()
        return self._observation(), float(opened), opened, over and not opened, {}

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        return self.COLOURS[self._cells()].repeat(32, 0).repeat(32, 1)
