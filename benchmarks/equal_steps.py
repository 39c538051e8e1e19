"""Our model and transformers' of the same size, trained by the same loop on the same batches for the same steps.

    python benchmarks/equal_steps.py configs/bert/books.yaml --seeds 0,1,2
    python benchmarks/equal_steps.py configs/t5/books.yaml --seeds 0,1,2 training.steps=1000

Ours is the run that `train.py CONFIG --seeds 0,1,2` makes; where it is there already, it is not made again. transformers' model
sees the same batches and hidden tokens in the same precision, with its own family's first values, AdamW with a warm-up over a
tenth of the steps and then linearly down, clipped at 1; `--rate` is its learning rate. Figures are of the whole validation
split after the last step.
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
from chopmix.training.commands import train
from chopmix.training.config import Config, config_from_tree, load_config
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


RECIPE = {"optimizer": "adamw", "clip": 1.0}
"""How transformers' models are trained: their families' AdamW, a warm-up over a tenth of the steps, then linearly down."""
PEERS = {MaskedModeling: PeerBert, SpanCorruption: PeerT5}


def peer_figures(config: Config, rate: float) -> dict[str, float]:
    """The last validation figures of transformers' model, with its parameters and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        steps = config.training.steps
        recipe = RECIPE | {"learning_rate": rate, "schedule": {"use": "linear", "warmup": steps // 10}}
        config = config_from_tree({**config.tree, "training": config.tree["training"] | recipe, "out": folder})
        trainer = Trainer(config, Processes(0, 1, torch.device("cpu")), Progress(steps))
        torch.manual_seed(config.training.seed)
        peer = PEERS[next(iter(config.tasks.values())).target].like(trainer.model, config)
        trainer.model, trainer.objective = peer, Objective(peer, trainer.tasks, trainer.choices.precision)
        trainer.optimizer = config.training.optimizer(peer, rate)
        trainer.forward = trainer.objective.train()
        start = time.perf_counter()
        for step in range(steps):
            loss = trainer.update(step)
            if (step + 1) % 100 == 0:
                print(f"step {step + 1:,}  loss {float(loss):.4f}", flush=True)
        seconds = time.perf_counter() - start
        figures = evaluate_split(peer, trainer.tasks, trainer.splits["val"], rows=config.evaluation.rows)
    return {**figures, "parameters": sum(p.numel() for p in peer.parameters()), "seconds": seconds}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("overrides", nargs="*")
    options.add_argument("--seeds", default="0")
    options.add_argument("--rate", type=float, default=1e-3, help="transformers' learning rate")
    chosen = options.parse_args()
    rows = []
    for seed in map(int, chosen.seeds.split(",")):
        out = load_config(chosen.config, chosen.overrides).out
        config = load_config(chosen.config, [*chosen.overrides, f"training.seed={seed}", f"out={out}/seed-{seed}"])
        rows.append({"what": "chopmix", "seed": seed, **train(config)[0]})
        rows.append({"what": "transformers", "seed": seed, "rate": chosen.rate, **peer_figures(config, chosen.rate)})
    write_results(f"equal_steps_{chosen.config.split('configs/')[-1].removesuffix('.yaml').replace('/', '_')}", rows)


if __name__ == "__main__":
    main()
