"""Models of one size, trained by the same loop on the same batches for the same steps, each at the best of the same
number of rates.

    python benchmarks/equal_steps.py configs/bert/books.yaml --who ours,ours_adamw,first,modern
    python benchmarks/equal_steps.py configs/t5/books.yaml --who modern --rates 1e-3,3e-3 --seeds 0,1,2
    training.steps=1000

`ours`: the configuration with its own recipe. `ours_adamw`: its model with the recipe of transformers' models: AdamW,
a warm-up over a tenth of the steps and then linearly down, clipped at 1. `first`: transformers' model of the first
paper (BERT of 2018, T5 of version 1.1, 2020); `modern`: transformers' pre-norm, rotary, gated one (ModernBERT's
shape, T5Gemma's), both with that recipe and their own first values. All see the same batches and the same hidden
tokens in the same precision; figures are of the whole validation split after the last step. What is in
`benchmarks/results/` since `--since` is not made again, so that a sweep can be stopped.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from chopmix.data.processes import Processes
from chopmix.experiment.settings.config import Config, config_from_tree, load_config
from chopmix.experiment.train import assemble
from chopmix.inference.evaluation import evaluate_split
from chopmix.models.batch import Batch, SetPlan
from chopmix.models.model import Model, at
from chopmix.tasks.masked_modeling import MaskedModeling
from chopmix.tasks.span_corruption import SpanCorruption
from chopmix.training.log import Progress
from chopmix.training.objective import Objective, Replica, autocast
from results import read_results, write_results
from torch import Tensor, nn


class Peer(nn.Module):
    """Base of transformers' models that stand in a model's place: they read planned batches and give every task's
    scores."""

    def __init__(self, theirs: nn.Module, task: str):
        super().__init__()
        self.theirs, self.task = theirs, task
        self.heads = {task: theirs}

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
    def like(cls, ours: Model, config: Config) -> PeerBert:
        """One of the size of a configuration's model."""
        core, embedding = ours.core, ours.tokenizer("text").embedding
        shape = transformers.BertConfig(
            vocab_size=embedding.num_embeddings,
            hidden_size=core.width,
            num_hidden_layers=len(core.blocks),
            num_attention_heads=config.model.options["heads"],
            intermediate_size=4 * core.width,
            max_position_embeddings=config.model.options["context"],
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return cls(transformers.BertForMaskedLM(shape), next(iter(config.tasks)))

    def scores(self, batch: Batch) -> Tensor:
        ids, there = padded(batch.main, "text")
        return self.theirs(ids, attention_mask=there).logits


class PeerModernBert(PeerBert):
    """transformers' ModernBERT: pre-norm, rotary, gated, no biases; every layer reads the whole text, as ours does."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerModernBert:
        """One of the size of a configuration's model."""
        core, context = ours.core, config.model.options["context"]
        shape = transformers.ModernBertConfig(
            vocab_size=ours.tokenizer("text").embedding.num_embeddings,
            hidden_size=core.width,
            num_hidden_layers=len(core.blocks),
            num_attention_heads=config.model.options["heads"],
            intermediate_size=round(8 / 3 * core.width),
            max_position_embeddings=context,
            local_attention=2 * context,
            global_attn_every_n_layers=1,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            cls_token_id=0,
            sep_token_id=0,
        )
        return cls(transformers.ModernBertForMaskedLM(shape), next(iter(config.tasks)))


class PeerT5(Peer):
    """transformers' T5, version 1.1: its head is a matrix of its own. transformers ties it to the embedding
    table, so it is made here, with first values that give scores of variance 1 (its own, of std 1, start at a
    loss of 80)."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerT5:
        """One of the size of a configuration's model."""
        core, embedding = ours.core, ours.tokenizer("text").embedding
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
        (read, there), (written, _) = padded(batch.encoder, "text"), padded(batch.main, "spans")
        return self.theirs(read, attention_mask=there, decoder_input_ids=written).logits


def padded(planned: SetPlan, name: str) -> tuple[Tensor, Tensor]:
    """A set's ids, (b, n), and where there are any."""
    chunks, there = planned.chunks[name], planned.tokens.sample > 0
    ids = torch.zeros(there.shape, dtype=torch.long)
    if chunks.slots is None:
        return chunks.values.view(there.shape), there
    ids.view(-1)[chunks.slots] = chunks.values.flatten()
    return ids, there


class PeerT5Gemma(PeerT5):
    """transformers' T5Gemma: norms before and behind every part, rotary, gated; its head is the table."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerT5Gemma:
        """One of the size of a configuration's model."""
        core, block, heads = ours.core, ours.core.blocks[0], config.model.options["heads"]
        side = {
            "vocab_size": ours.tokenizer("text").embedding.num_embeddings,
            "hidden_size": core.width,
            "intermediate_size": block.feed_forward.up.out_features,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": block.attention.channels,
            "query_pre_attn_scalar": block.attention.channels,
            "sliding_window": 4096,
            "max_position_embeddings": 512,
        }
        encoder = transformers.T5GemmaModuleConfig(**side, num_hidden_layers=len(ours.cores["encoder"].blocks))
        decoder = transformers.T5GemmaModuleConfig(**side, num_hidden_layers=len(core.blocks), is_decoder=True)
        shape = transformers.T5GemmaConfig(
            encoder=encoder, decoder=decoder, vocab_size=side["vocab_size"], dropout_rate=0.0, attention_dropout=0.0
        )
        return cls(transformers.T5GemmaForConditionalGeneration(shape), next(iter(config.tasks)))


RATES = "3e-4,1e-3,3e-3,1e-2"
"""For AdamW; for `ours` times 20, Muon's usual ratio to it: 6e-3 to 0.2."""
PEERS = {
    ("first", MaskedModeling): PeerBert, ("modern", MaskedModeling): PeerModernBert,
    ("first", SpanCorruption): PeerT5, ("modern", SpanCorruption): PeerT5Gemma,
}  # fmt: skip


def recipe(steps: int, rate: float) -> dict[str, Any]:
    """How transformers' models are trained: their families' AdamW, a warm-up over a tenth of the steps, then
    linearly down."""
    schedule = {"use": "linear", "warmup": steps // 10}
    return {"optimizer": "adamw", "clip": 1.0, "learning_rate": rate, "schedule": schedule}


def trained(config: Config, make: Callable[[Model, Config], nn.Module] | None) -> dict[str, float]:
    """The last validation figures of a configuration's model, or of the one that `make` puts in its place, with
    parameters and seconds."""
    steps, rate = config.training.steps, config.training.learning_rate
    made = assemble(config, Processes(0, 1, torch.device("cpu")), Progress(steps))
    learner = made.trainer.learner
    if make is not None:
        torch.manual_seed(config.training.seed)
        peer = make(made.model, config)
        learner.replica = Replica(Objective(peer, made.data.tasks, made.choices.precision), made.processes)
        learner.optimizer = config.training.optimizer(peer, rate)
    learner.replica.start()
    start = time.perf_counter()
    with made.trainer.loader as loader:
        for step in range(steps):
            loss = learner.update(step, loader.load(step))
            if (step + 1) % 100 == 0:
                print(f"step {step + 1:,}  loss {float(loss):.4f}", flush=True)
    seconds = time.perf_counter() - start
    with autocast(made.processes.device, made.choices.precision):
        figures = evaluate_split(made.model, made.data.tasks, made.data.splits["val"], rows=config.evaluation.rows)
    count = sum(parameter.numel() for parameter in made.model.parameters())
    return {**figures, "parameters": count, "seconds": seconds}


def cell(file: str, overrides: list[str], who: str, rate: float, seed: int) -> dict[str, float]:
    """One training."""
    with tempfile.TemporaryDirectory() as folder:
        own = [*overrides, f"training.seed={seed}", f"out={folder}"]
        config = load_config(file, own)
        changed = {"learning_rate": rate} if who == "ours" else recipe(config.training.steps, rate)
        config = config_from_tree({**config.tree, "training": config.tree["training"] | changed})
        kind = next(iter(config.tasks.values())).target
        return trained(config, None if who.startswith("ours") else PEERS[who, kind].like)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("overrides", nargs="*")
    options.add_argument("--who", default="ours,ours_adamw,first,modern")
    options.add_argument("--seeds", default="0", help="the first is tried at every rate, the others at the best")
    options.add_argument("--rates", default=RATES, help="of AdamW; those of ours are 20 times these")
    options.add_argument(
        "--since", default=str(datetime.date.today()), help="what was measured from this day on is not made again"
    )
    chosen = options.parse_intermixed_args()
    name = chosen.config.split("configs/")[-1].removesuffix(".yaml").replace("/", "_")
    overrides = " ".join(chosen.overrides)
    first, *others = map(int, chosen.seeds.split(","))

    def figures(who: str, rate: float, seed: int) -> float:
        known = {"who": who, "rate": rate, "seed": seed, "overrides": overrides}
        for row in read_results(f"equal_steps_{name}"):
            if row["measured"] >= chosen.since and known.items() <= row.items():
                return row["val/loss"]
        print(f"{who}, rate {rate:g}, seed {seed}", flush=True)
        row = cell(chosen.config, chosen.overrides, who, rate, seed)
        write_results(f"equal_steps_{name}", [{"who": who, "rate": rate, "seed": seed, "overrides": overrides, **row}])
        return row["val/loss"]

    for who in chosen.who.split(","):
        rates = [float(f"{float(rate) * (20 if who == 'ours' else 1):.6g}") for rate in chosen.rates.split(",")]
        best = min(rates, key=lambda rate: figures(who, rate, first))
        for seed in others:
            figures(who, best, seed)


if __name__ == "__main__":
    main()
