"""Guidance: what the given inputs change about the scores is enlarged (classifier-free guidance)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .session import Session


class Guided:
    """Two sessions of the same rows, one with the inputs and one without, used as one `Session`.

    The scores are u + weight * (c - u), where c are the log-probabilities with inputs and u those without: `weight` 1
    gives c, 0 gives u, a larger one enlarges the difference (Ho & Salimans 2022, arXiv:2207.12598; of texts Sanchez et
    al. 2023, arXiv:2306.17806). The model knows u if inputs were dropped in training (`training.input_dropout`).
    """

    def __init__(self, given: Session, without: Session, weight: float):
        self.given, self.without, self.weight = given, without, weight
        self.most = min(given.most, without.most)

    @property
    def ids(self) -> Int[Tensor, "b n"]:
        """The ids of the rows, as of a `Session`."""
        return self.given.ids

    def scores(self) -> Float[Tensor, "b v"]:
        """The guided scores of the next id of each row: logits, as those of a `Session`, whose exponentials need not
        add up to 1."""
        given, without = (each.scores().float().log_softmax(-1) for each in (self.given, self.without))
        return torch.where(without == -torch.inf, given, without + self.weight * (given - without))

    def append(self, ids: Int[Tensor, "b"]) -> None:
        self.given.append(ids)
        self.without.append(ids)

    def expand(self, beams: int) -> None:
        self.given.expand(beams)
        self.without.expand(beams)

    def inherit(self, parents: Int[Tensor, "b"]) -> None:
        self.given.inherit(parents)
        self.without.inherit(parents)

    def keep(self, samples: Sequence[int]) -> None:
        self.given.keep(samples)
        self.without.keep(samples)
