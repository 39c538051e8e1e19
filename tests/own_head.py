"""A head that a user defines outside the package, and classes that are no valid heads."""

import torch
import torch.nn.functional as F
from chopmix.models.heads import VocabularyHead
from torch import nn


class Cosine(VocabularyHead):
    """Scores by the angle between a vector and the vector of each id, multiplied by one learned number."""

    def __init__(self, embedding, *, sharpness: float = 10.0):
        super().__init__(embedding)
        self.sharpness = nn.Parameter(torch.tensor([sharpness]))

    def weights(self):
        return self.table.numel()

    def forward(self, x, targets=None):
        return self.sharpness * F.linear(F.normalize(x, dim=-1), F.normalize(self.table, dim=-1))


class Silent(VocabularyHead):
    """Wrong: has no `forward`."""


class NoHead(nn.Module):
    """Wrong: not a head."""
