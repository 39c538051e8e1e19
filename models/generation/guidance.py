"""Classifier-free guidance: enlarges the effect of the inputs on the scores of the next id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .session import Session


class Guided:
    """Two sessions of the same rows, `conditional` with the inputs and `unconditional` without them. Both are used
    together like one `Session`.

    The scores are u + weight * (c - u), where c are the log-probabilities with the inputs and u are the
    log-probabilities without the inputs. A `weight` of 1 results in c and a weight of 0 in u; values above 1 enlarge
    the difference (Ho & Salimans 2022, arXiv:2207.12598; for text Sanchez et al. 2023, arXiv:2306.17806). The model
    learns u if inputs are dropped in training (`training.input_dropout`).
    """

    def __init__(self, conditional: Session, unconditional: Session, weight: float):
        self.conditional, self.unconditional, self.weight = conditional, unconditional, weight
        self.most = min(conditional.most, unconditional.most)

    @property
    def ids(self) -> Int[Tensor, "b n"]:
        """The ids of the rows, including the prompts; shorter prompts start with -1 (`Session.ids`)."""
        return self.conditional.ids

    def scores(self) -> Float[Tensor, "b v"]:
        """Returns the guided scores of the next id of each row. Like logits, the scores are not normalised."""
        sessions = (self.conditional, self.unconditional)
        conditional, unconditional = (session.scores().float().log_softmax(-1) for session in sessions)
        guided = unconditional + self.weight * (conditional - unconditional)
        return torch.where(unconditional == -torch.inf, conditional, guided)

    def append(self, ids: Int[Tensor, "b"]) -> None:
        self.conditional.append(ids)
        self.unconditional.append(ids)

    def expand(self, beams: int) -> None:
        self.conditional.expand(beams)
        self.unconditional.expand(beams)

    def inherit(self, parents: Int[Tensor, "b"]) -> None:
        self.conditional.inherit(parents)
        self.unconditional.inherit(parents)

    def keep(self, samples: Sequence[int]) -> None:
        self.conditional.keep(samples)
        self.unconditional.keep(samples)
