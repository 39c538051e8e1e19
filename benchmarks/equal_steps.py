"""Our model and transformers' of the same size, trained by the same loop on the same batches for the same steps.

    python benchmarks/equal_steps.py configs/bert/books.yaml --seeds 0,1,2
    python benchmarks/equal_steps.py configs/t5/books.yaml --seeds 0,1,2 training.steps=1000

Only the model differs: batches, hidden tokens, precision, optimizer, schedule and clipping are those of the configuration,
and each model has its own family's first values. `--rate` gives transformers' model a learning rate of its own. Figures are of
the whole validation split after the last step.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch
import transformers
from chopmix.models.batch import Batch, PlannedSet
from chopmix.models.mixture import Mixture, at
from chopmix.tasks.masked_modeling import MaskedModeling
from chopmix.tasks.span_corruption import SpanCorruption
from chopmix.training.config import Config, load_config
from chopmix.training.distribution import Processes
from chopmix.training.evaluation import evaluate_split
from chopmix.training.loop import Trainer
from chopmix.training.objective import Objective
from chopmix.training.progress import Progress
from results import write_results
from torch import Tensor, nn


class Peer(nn.Module):
    """Base of transformers' models that stand in a mixture's place: they read planned batches and give every task's scores."""

    def __init__(self, theirs: nn.Module, task: str):
        super().__init__()
        self.theirs, self.task = theirs, task

    def plan(self, batch: Batch, **_) -> Batch:
        """Nothing: transformers' models plan for themselves."""
        return batch

    def scores(self, batch: Batch) -> Tensor:
        """The scores of every place of the main set, (b, n, v)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {self.task: at(self.scores(batch), batch.targets[self.task])}


class PeerBert(Peer):
    """transformers' BERT."""

    @classmethod
    def like(cls, ours: Mixture, config: Config) -> PeerBert:
        """One of the size of a configuration's model."""
        core, embedding = ours.cores["main"], ours.tokenizer("text").embedding
        shape = transformers.BertConfig(
            vocab_size=embedding.num_embeddings, hidden_size=core.width, num_hidden_layers=len(core.blocks),
            num_attention_heads=config.model.options["heads"], intermediate_size=4 * core.width,
            max_position_embeddings=config.model.options["context"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return cls(transformers.BertForMaskedLM(shape), next(iter(config.tasks)))

    def scores(self, batch: Batch) -> Tensor:
        ids, there = padded(batch.sets["main"], "text")
        return self.theirs(ids, attention_mask=there).logits


class PeerT5(Peer):
    """transformers' T5, version 1.1: its head is a matrix of its own. transformers ties it to the embedding table, so it is
    made here, with first values that give scores of variance 1 (its own, of deviation 1, start at a loss of 80)."""

    @classmethod
    def like(cls, ours: Mixture, config: Config) -> PeerT5:
        """One of the size of a configuration's model."""
        core, embedding = ours.cores["main"], ours.tokenizer("text").embedding
        block = core.blocks[0]
        shape = transformers.T5Config(
            vocab_size=embedding.num_embeddings, d_model=core.width, d_kv=block.attention.channels,
            d_ff=block.feed_forward.up.out_features, num_layers=len(ours.cores["encoder"].blocks),
            num_decoder_layers=len(core.blocks), num_heads=config.model.options["heads"], dropout_rate=0.0,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )  # fmt: skip
        theirs = transformers.T5ForConditionalGeneration(shape)
        theirs.lm_head.weight = nn.Parameter(torch.randn(shape.vocab_size, shape.d_model) * shape.d_model**-0.5)
        return cls(theirs, next(iter(config.tasks)))

    def scores(self, batch: Batch) -> Tensor:
        (read, there), (written, _) = padded(batch.sets["encoder"], "text"), padded(batch.sets["main"], "spans")
        return self.theirs(read, attention_mask=there, decoder_input_ids=written).logits


def padded(planned: PlannedSet, name: str) -> tuple[Tensor, Tensor]:
    """A set's ids, (b, n), and where there are any."""
    pieces, there = planned.pieces[name], planned.tokens.sample > 0
    ids = torch.zeros(there.shape, dtype=torch.long)
    if pieces.places is None:
        return pieces.values.view(there.shape), there
    ids.view(-1)[pieces.places] = pieces.values.flatten()
    return ids, there


PEERS = {MaskedModeling: PeerBert, SpanCorruption: PeerT5}


def trained(config: Config, peer: type[Peer] | None) -> dict[str, float]:
    """The last validation figures of our model or of its peer, with its parameters and seconds."""
    trainer = Trainer(config, Processes(0, 1, torch.device("cpu")), Progress(config.training.steps))
    if peer:
        torch.manual_seed(config.training.seed)
        trainer.model = peer.like(trainer.model, config)
        trainer.objective = Objective(trainer.model, trainer.tasks, trainer.choices.precision)
        trainer.optimizer = config.training.optimizer(trainer.model, config.training.learning_rate)
    trainer.forward = trainer.objective.train()
    start = time.perf_counter()
    for step in range(config.training.steps):
        loss = trainer.update(step)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1:,}  loss {float(loss):.4f}  {time.perf_counter() - start:.0f} s", flush=True)
    seconds = time.perf_counter() - start
    figures = evaluate_split(trainer.model, trainer.tasks, trainer.splits["val"], rows=config.evaluation.rows)
    return {**figures, "parameters": sum(p.numel() for p in trainer.model.parameters()), "seconds": seconds}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("overrides", nargs="*")
    options.add_argument("--seeds", default="0")
    options.add_argument("--rate", type=float, help="transformers' learning rate, where it is not the configuration's")
    chosen = options.parse_args()
    rows = []
    for seed in map(int, chosen.seeds.split(",")):
        for name in ("chopmix", "transformers"):
            rate = [f"training.learning_rate={chosen.rate}"] if chosen.rate and name == "transformers" else []
            with tempfile.TemporaryDirectory() as folder:
                given = [*chosen.overrides, f"training.seed={seed}", f"out={folder}", *rate]
                config = load_config(chosen.config, given)
                peer = PEERS[next(iter(config.tasks.values())).target]
                rows.append({"what": name, "seed": seed, **trained(config, peer if name == "transformers" else None)})
    write_results(f"equal_steps_{chosen.config.split('configs/')[-1].removesuffix('.yaml').replace('/', '_')}", rows)


if __name__ == "__main__":
    main()
