"""Text models compared with nanoGPT and transformers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from architectures import saved
from chopmix.experiment.build import build_model, build_tasks
from chopmix.experiment.run import Run
from chopmix.experiment.settings.config import load_config
from chopmix.models.arithmetic import computing_type
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.generation.beam_search import Search
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.base import with_targets
from chopmix.tasks.language_modeling import nats
from chopmix.tokenizers.encoding.base import CharacterEncoding
from chopmix.tokenizers.text import TextChopper
from pairs_of.common import CONFIGS, Pair, peer_precision, planned, precision_of, training
from torch import Tensor, nn


class Gpt(nn.Module):
    """A GPT written as in nanoGPT: one projection for queries, keys and values, torch's attention, no biases, tied
    head."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int):
        super().__init__()
        self.heads = heads
        self.table, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2 * depth + 1))
        self.attention = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width, bias=False) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * width, width, bias=False) for _ in range(depth))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02) if parameter.dim() > 1 else nn.init.ones_(parameter)

    def forward(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        b, n = ids.shape
        x = self.table(ids) + self.positions(torch.arange(n))
        for layer, (attention, out, up, down) in enumerate(zip(self.attention, self.out, self.up, self.down)):
            parts = attention(self.norms[2 * layer](x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            values = F.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + out(values.transpose(1, 2).reshape(b, n, -1))
            x = x + down(F.gelu(up(self.norms[2 * layer + 1](x))))
        scores = F.linear(self.norms[-1](x), self.table.weight)
        return scores, F.cross_entropy(scores.flatten(0, 1), targets.flatten())


def nanogpt(folder: Path, setting: str, file: Path | None) -> Pair:
    """nanoGPT's character model for a CPU: 4 layers, 4 heads, width 128, context length 64, batches of 12
    rows, no dropout, no biases."""
    config = load_config(CONFIGS / "lm" / "shakespeare_char_nanogpt.yaml")
    symbols = "".join(map(chr, range(33, 98)))
    choppers = {"text": TextChopper(vocabulary=CharacterEncoding(symbols))}
    tasks = build_tasks(config, choppers)
    model, task = build_model(config, choppers, tasks), tasks["lm"]
    size = model.tokenizers["text"].embedding.num_embeddings
    if file is None:
        theirs, name = Gpt(size, 64, 128, 4, 4), "a GPT as nanoGPT writes it"
    else:
        spec = importlib.util.spec_from_file_location("nanogpt_model", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        shape = module.GPTConfig(
            block_size=64, vocab_size=size, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False
        )
        theirs, name = module.GPT(shape), "nanoGPT's own model.py"
    ids = torch.randint(65, (12, 65))
    tokens, inputs, following = plain_tokens(12, 64), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=inputs, index=torch.arange(64), next_ids=following)}
        plan = SetPlan(tokens=tokens, chunks=chunks)
        batch = model.plan(with_targets(Batch(main=plan), {"lm": task}), dtype=computing_type(model))
        loss = task.terms(model(batch)["lm"], batch.targets["lm"])["loss"]
        return loss / batch.targets["lm"].count

    return (
        training(model, loss, precision_of(config, setting), 1.0, 1e-3),
        training(theirs, lambda: theirs(inputs, following)[1], peer_precision(setting), 1.0, 1e-3),
        name,
    )


def gpt2(folder: Path, setting: str, file: None) -> Pair:
    """The same shape with biases, as in GPT-2."""
    shape = {"vocab_size": 66, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **shape, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0, use_cache=False
        )
    )
    run = saved(theirs, folder)
    ids = torch.randint(1, 66, (12, 65))
    tokens, inputs, following = plain_tokens(12, 64), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=inputs, index=torch.arange(64), next_ids=following)}
        plan = SetPlan(tokens=tokens, chunks=chunks)
        batch = planned(run, with_targets(Batch(main=plan), run.tasks))
        loss = run.tasks["lm"].terms(run.model(batch)["lm"], batch.targets["lm"])["loss"]
        return loss / batch.targets["lm"].count

    def other() -> Tensor:
        return F.cross_entropy(theirs(inputs).logits.flatten(0, 1), following.flatten())

    return (
        training(run.model, loss, precision_of(run.config, setting), 1.0),
        training(theirs, other, peer_precision(setting), 1.0),
        "transformers",
    )


def bert(folder: Path, setting: str, file: None) -> Pair:
    """Four layers of width 256, 16 texts of 128 tokens, 15 % of which are masked; the head is applied to these only."""
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))  # fmt: skip
    run = saved(theirs, folder)
    values, masked = torch.randint(200, 8000, (16, 128)), torch.rand(16, 128) < 0.15
    slots = masked.flatten().nonzero()[:, 0]
    targets = Targets(values=values.flatten()[slots], slots=slots)

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=values, index=torch.arange(128))}
        batch = planned(run, Batch(main=SetPlan(tokens=plain_tokens(16, 128), chunks=chunks), targets={"mlm": targets}))
        return nats(run.model(batch)["mlm"], targets.values) / len(slots)

    def other() -> Tensor:
        hidden = theirs.bert(values).last_hidden_state.flatten(0, 1)[slots]
        return F.cross_entropy(theirs.cls(hidden), targets.values)

    return (
        training(run.model, loss, precision_of(run.config, setting)),
        training(theirs, other, peer_precision(setting)),
        "transformers",
    )


def t5_models(folder: Path) -> tuple[Run, nn.Module]:
    """Returns our and transformers' T5 with three layers of width 256 in the encoder and in the decoder."""
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=8000,
            d_model=256,
            d_kv=64,
            d_ff=1024,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )
    return saved(theirs, folder), theirs


def numbers(row: Tensor) -> str:
    """Formats ids for the encoding `numbers`: `<5><17>`."""
    return "".join(f"<{id}>" for id in row.tolist())


def t5(folder: Path, setting: str, file: None) -> Pair:
    """Sixteen texts of 96 tokens with targets of 48 tokens."""
    run, theirs = t5_models(folder)
    values, answers = torch.randint(5, 8000, (16, 95)), torch.randint(5, 8000, (16, 47))
    samples = [{"source": numbers(row), "target": numbers(out)} for row, out in zip(values, answers)]
    split, task = replace(run.as_split(samples), tasks=run.tasks), run.tasks["answer"]
    end = torch.ones(16, 1, dtype=torch.long)
    inputs, labels = torch.cat([values, end], 1), torch.cat([answers, end], 1)

    def loss() -> Tensor:
        batch = planned(run, split.batch(split.all(), training=True))
        loss = task.terms(run.model(batch)["answer"], batch.targets["answer"])["loss"]
        return loss / batch.targets["answer"].count

    other = training(theirs, lambda: theirs(inputs, labels=labels).loss, peer_precision(setting))
    return training(run.model, loss, precision_of(run.config, setting)), other, "transformers"


def beams(folder: Path, setting: str, file: None) -> Pair:
    """Beam search on eight texts of 32 tokens: 4 beams, 40 tokens each."""
    run, theirs = t5_models(folder)
    values = torch.randint(5, 8000, (8, 31))
    samples = [{"source": numbers(row)} for row in values]
    inputs = torch.cat([values, torch.ones(8, 1, dtype=torch.long)], 1)
    theirs.eval()

    def peer() -> object:
        with torch.inference_mode():
            return theirs.generate(inputs, num_beams=4, max_new_tokens=40, do_sample=False)

    return lambda: run.predict(samples, search=Search(beams=4), max_tokens=40), peer, "transformers"
