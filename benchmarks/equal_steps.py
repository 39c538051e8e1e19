"""Compares models of equal size that are trained by the same loop, on the same batches, for the same number of steps.
Every model uses the best of the same number of learning rates.

    python benchmarks/equal_steps.py configs/bert/books.yaml --who ours,ours_adamw,first,modern
    python benchmarks/equal_steps.py configs/t5/books.yaml --who modern --rates 1e-3,3e-3 --seeds 0,1,2 \\
        training.steps=1000

`ours`: the configuration with its own recipe. `ours_adamw`: its model with the recipe of the peers: AdamW, linear
warm-up over a tenth of the steps, then linear decay, gradients clipped at 1. `first`: transformers' model of the
original paper (BERT of 2018, T5 1.1 of 2020). `modern`: transformers' pre-norm model with rotary positions and gated
layers (ModernBERT, T5Gemma). Both use the peers' recipe and their own initialization. All models receive the same
batches and masked tokens in the same precision. Metrics are measured on the complete validation split after the last
step. Results in `benchmarks/results/` since `--since` are not measured again, so that a sweep can be interrupted.
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
from chopmix.experiment.assemble import assemble
from chopmix.experiment.settings.config import Config, config_from_tree, load_config
from chopmix.inference.evaluation import measured
from chopmix.inference.trained import TrainedModel
from chopmix.models.batch import Batch, SetPlan
from chopmix.models.model import Model, at
from chopmix.tasks.masked_modeling import MaskedModeling
from chopmix.tasks.span_corruption import SpanCorruption
from chopmix.training.objective import Objective, Replica, autocast
from chopmix.training.progress import Progress
from results import read_results, write_results
from torch import Tensor, nn


class Peer(nn.Module):
    """Base class of adapters that give a model of transformers the interface of our `Model`: planned batches in, logits
    of the task out."""

    def __init__(self, theirs: nn.Module, task: str):
        super().__init__()
        self.theirs, self.task = theirs, task
        self.heads, self.cores = {task: theirs}, {}

    def plan(self, batch: Batch, **_) -> Batch:
        """Returns the batch unchanged: models of transformers need no layouts."""
        return batch

    def scores(self, batch: Batch) -> Tensor:
        """Returns the logits of every slot of the main set, (b, n, v)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {self.task: at(self.scores(batch), batch.targets[self.task])}


class PeerBert(Peer):
    """transformers' BERT."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerBert:
        """Returns a peer with the size of the configuration's model."""
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
        ids, attention_mask = padded(batch.main, "text")
        return self.theirs(ids, attention_mask=attention_mask).logits


class PeerModernBert(PeerBert):
    """transformers' ModernBERT: pre-norm, rotary, gated, no biases; every layer attends to the complete text, as in
    ours."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerModernBert:
        """Returns a peer with the size of the configuration's model."""
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
    """transformers' T5 1.1. Its head is a separate matrix, which transformers ties to the embedding table, so it is
    created here. Its initial values give logits of variance 1 (transformers' values, of std 1, give a loss of 80)."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerT5:
        """Returns a peer with the size of the configuration's model."""
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
        (ids, attention_mask), (decoder_ids, _) = padded(batch.encoder, "text"), padded(batch.main, "spans")
        return self.theirs(ids, attention_mask=attention_mask, decoder_input_ids=decoder_ids).logits


def padded(planned: SetPlan, name: str) -> tuple[Tensor, Tensor]:
    """Returns the ids of a set, (b, n), and its attention mask: True for tokens, False for padding."""
    chunks, attention_mask = planned.chunks[name], planned.tokens.sample > 0
    ids = torch.zeros(attention_mask.shape, dtype=torch.long)
    if chunks.slots is None:
        return chunks.values.view(attention_mask.shape), attention_mask
    ids.view(-1)[chunks.slots] = chunks.values.flatten()
    return ids, attention_mask


class PeerT5Gemma(PeerT5):
    """transformers' T5Gemma: norms before and after every layer, rotary, gated; its head is tied to the table."""

    @classmethod
    def like(cls, ours: Model, config: Config) -> PeerT5Gemma:
        """Returns a peer with the size of the configuration's model."""
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
"""Learning rates for AdamW. `ours` uses 20 times these, the usual ratio of Muon: 6e-3 to 0.2."""
PEERS = {
    ("first", MaskedModeling): PeerBert, ("modern", MaskedModeling): PeerModernBert,
    ("first", SpanCorruption): PeerT5, ("modern", SpanCorruption): PeerT5Gemma,
}  # fmt: skip


def recipe(steps: int, rate: float) -> dict[str, Any]:
    """Returns the training settings of the peers: AdamW, linear warm-up over a tenth of the steps, then linear
    decay."""
    schedule = {"use": "linear", "warmup": steps // 10}
    return {"optimizer": "adamw", "clip": 1.0, "learning_rate": rate, "schedule": schedule}


def trained(config: Config, make: Callable[[Model, Config], nn.Module] | None) -> dict[str, float]:
    """Trains the model of a configuration, or the peer that `make` returns. Returns its final validation metrics,
    number of parameters and training seconds."""
    steps, rate = config.training.steps, config.training.learning_rate
    experiment = assemble(config, Processes(0, 1, torch.device("cpu")), Progress(steps))
    learner = experiment.trainer.learner
    if make is not None:
        torch.manual_seed(config.training.seed)
        peer = make(experiment.model, config)
        learner.replica = Replica(
            Objective(peer, experiment.data.tasks, experiment.choices.precision), experiment.processes
        )
        learner.optimizer = config.training.optimizer(peer, rate)
    learner.replica.start()
    start = time.perf_counter()
    with experiment.trainer.loader as loader:
        for step in range(steps):
            loss = learner.update(step, loader.load(step))
            if (step + 1) % 100 == 0:
                print(f"step {step + 1:,}  loss {float(loss):.4f}", flush=True)
    seconds = time.perf_counter() - start
    with autocast(experiment.processes.device, experiment.choices.precision):
        trained = TrainedModel(model=experiment.model, tasks=experiment.data.tasks)
        figures = measured(trained, experiment.data.splits["val"], rows=config.evaluation.rows).metrics
    count = sum(parameter.numel() for parameter in experiment.model.parameters())
    return {**figures, "parameters": count, "seconds": seconds}


def cell(file: str, overrides: list[str], who: str, rate: float, seed: int) -> dict[str, float]:
    """Trains one model with one learning rate and seed, and returns its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(file, [*overrides, f"training.seed={seed}", f"out={folder}"])
        changed = {"learning_rate": rate} if who == "ours" else recipe(config.training.steps, rate)
        config = config_from_tree({**config.tree, "training": config.tree["training"] | changed})
        kind = next(iter(config.tasks.values())).target
        return trained(config, None if who.startswith("ours") else PEERS[who, kind].like)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("overrides", nargs="*")
    options.add_argument("--who", default="ours,ours_adamw,first,modern")
    options.add_argument(
        "--seeds", default="0", help="the first seed is trained at every rate, the others at the best rate"
    )
    options.add_argument("--rates", default=RATES, help="learning rates of AdamW; those of ours are 20 times these")
    options.add_argument(
        "--since", default=str(datetime.date.today()), help="results since this day are not measured again"
    )
    chosen = options.parse_intermixed_args()
    name = chosen.config.split("configs/")[-1].removesuffix(".yaml").replace("/", "_")
    overrides = " ".join(chosen.overrides)
    first, *others = map(int, chosen.seeds.split(","))

    def figures(who: str, rate: float, seed: int) -> float:
        key = {"who": who, "rate": rate, "seed": seed, "overrides": overrides}
        for row in read_results(f"equal_steps_{name}"):
            if row["measured"] >= chosen.since and key.items() <= row.items():
                return row["val/loss"]
        print(f"{who}, rate {rate:g}, seed {seed}", flush=True)
        row = cell(chosen.config, chosen.overrides, who, rate, seed)
        write_results(f"equal_steps_{name}", [{**key, **row}])
        return row["val/loss"]

    for who in chosen.who.split(","):
        rates = [float(f"{float(rate) * (20 if who == 'ours' else 1):.6g}") for rate in chosen.rates.split(",")]
        best = min(rates, key=lambda rate: figures(who, rate, first))
        for seed in others:
            figures(who, best, seed)


if __name__ == "__main__":
    main()
