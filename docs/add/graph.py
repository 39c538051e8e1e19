"""An attention graph: every `step`-th token before (Child et al. 2019, arXiv:1904.10509).

model: {attention: "causal & graph:Dilated(2)"}
"""

from dataclasses import dataclass

from chopmix import Graph


@dataclass(frozen=True)
class Dilated(Graph):
    step: int

    def edge(self, query, key):
        return (query.position[0] - key.position[0]) % self.step == 0
