"""Our training steps, beam search and transcription beside their peers': the same shapes, weights and batches, in
turns.

    python benchmarks/peers.py nanogpt --model PATH       # nanoGPT's own model.py, from a checkout of it; else
    one written here python benchmarks/peers.py gpt2 | bert | t5 | whisper | ast      # transformers' python
    benchmarks/peers.py vit                        # timm's
    python benchmarks/peers.py beams | transcription      # transformers' generate: 4 beams of the T5; a greedy Whisper
    ... --precision defaults                              # each as its own defaults have it, instead of float32
    on both sides

Every step is forward, backward, clipping where the peer clips, and fused AdamW, eager, on the CPU, and each of the
two is as often first as second. Ours starts from raw values (ids, pixels, samples) and chops, plans and embeds them
every time; what each peer gets is in DIFFERENCES, which the README's table shows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import transformers
from architectures import saved
from chopmix.experiment.assembly.model import build_model
from chopmix.experiment.data.tasks import build_tasks
from chopmix.experiment.importing.directory import import_directory
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.resolved import resolve
from chopmix.experiment.settings.sections import Training
from chopmix.experiment.views.transcribe import transcriber_of
from chopmix.inference.transcription import Transcribing
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.generation.beam_search import Search
from chopmix.models.generation.fast_decoder import computing_type
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.language_modeling import nats
from chopmix.tasks.targets import with_targets
from chopmix.tokenizers.encoding.base import CharacterEncoding
from chopmix.tokenizers.text import TextChopper
from chopmix.training.objective import autocast
from pairs import figures, timed_pairs
from results import write_results
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

CONFIGS = Path(__file__).parent.parent / "configs"
CPU = torch.device("cpu")
Loss = Callable[[], Tensor]
Pair = tuple[Callable[[], object], Callable[[], object], str]
"""Ours, the peer's, and the peer's name."""
DIFFERENCES = {
    "nanogpt": "no biases on either side; ours plans layouts and looks its ids up from raw characters' ids",
    "gpt2": "biases on both sides; both get ids",
    "vit": "ours gets bytes of pixels and normalises them, timm's gets floats",
    "ast": "ours makes its spectrogram from the sound, transformers' gets it ready made",
    "bert": "the head on the judged tokens alone (15 %) on both sides: transformers' body, its head called on them",
    "t5": "ours chops and packs texts every time, transformers' gets padded ids",
    "whisper": "both get spectrograms",
    "beams": "ours chops texts, transformers' gets ids; a random model, so that no text ends early",
    "transcription": "both get one spectrogram of 30 seconds; greedy, without timestamps",
}


def training(
    model: nn.Module, loss: Loss, precision: str, clip: float | None = None, rate: float = 1e-5
) -> Callable[[], None]:
    """One training step."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.1, fused=True)

    def step() -> None:
        with autocast(CPU, precision):
            found = loss()
        found.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def own_precision(run: Run, wanted: str) -> str:
    """float32, or what a run of this model would choose for itself."""
    return "float32" if wanted == "float32" else resolve(Training(steps=1), run.config.model, None, CPU).precision


def planned(run: Run, batch: Batch) -> Batch:
    """A batch with its layouts."""
    return run.model.plan(batch, dtype=computing_type(run.model))


# ------------------------------------------------------------------------------------------------------------ texts


class Gpt(nn.Module):
    """A GPT as nanoGPT writes it: one projection for queries, keys and values, torch's attention, no biases, a
    tied head."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int):
        super().__init__()
        self.heads = heads
        self.table, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2 * depth + 1))
        self.reading = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width, bias=False) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * width, width, bias=False) for _ in range(depth))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02) if parameter.dim() > 1 else nn.init.ones_(parameter)

    def forward(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        b, n = ids.shape
        x = self.table(ids) + self.places(torch.arange(n))
        for layer, (reading, out, up, down) in enumerate(zip(self.reading, self.out, self.up, self.down)):
            parts = reading(self.norms[2 * layer](x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            heard = F.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + out(heard.transpose(1, 2).reshape(b, n, -1))
            x = x + down(F.gelu(up(self.norms[2 * layer + 1](x))))
        scores = F.linear(self.norms[-1](x), self.table.weight)
        return scores, F.cross_entropy(scores.flatten(0, 1), targets.flatten())


def nanogpt(folder: Path, wanted: str, file: Path | None) -> Pair:
    """nanoGPT's character model for a CPU: 4 layers, 4 heads, 128 wide, context 64, 12 rows, no dropout, no biases."""
    config = load_config(CONFIGS / "lm" / "shakespeare_char_nanogpt.yaml")
    symbols = "".join(map(chr, range(33, 98)))
    choppers = {"text": TextChopper(text=CharacterEncoding(symbols))}
    tasks = build_tasks(config, choppers)
    model, task = build_model(config, choppers, tasks), tasks["lm"]
    size = model.tokenizers["text"].embedding.num_embeddings
    if file is None:
        theirs, name = Gpt(size, 64, 128, 4, 4), "a GPT as nanoGPT writes it"
    else:
        found = importlib.util.spec_from_file_location("nanogpt_model", file)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        shape = module.GPTConfig(
            block_size=64, vocab_size=size, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False
        )
        theirs, name = module.GPT(shape), "nanoGPT's own model.py"
    ids = torch.randint(65, (12, 65))
    tokens, given, following = plain_tokens(12, 64), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=given, index=torch.arange(64), next_ids=following)}
        made = SetPlan(tokens=tokens, chunks=chunks)
        batch = model.plan(with_targets(Batch(main=made), {"lm": task}), dtype=computing_type(model))
        loss = task.terms(model(batch)["lm"], batch.targets["lm"])["loss"]
        return loss / batch.targets["lm"].count

    precision = "float32" if wanted == "float32" else resolve(Training(steps=1), config.model, None, CPU).precision
    return (
        training(model, loss, precision, 1.0, 1e-3),
        training(theirs, lambda: theirs(given, following)[1], "float32", 1.0, 1e-3),
        name,
    )


def gpt2(folder: Path, wanted: str, file: None) -> Pair:
    """The same shape with biases, as GPT-2 has them."""
    shape = {"vocab_size": 66, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **shape, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0, use_cache=False
        )
    )
    run = saved(theirs, folder)
    ids = torch.randint(1, 66, (12, 65))
    tokens, given, following = plain_tokens(12, 64), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=given, index=torch.arange(64), next_ids=following)}
        made = SetPlan(tokens=tokens, chunks=chunks)
        batch = planned(run, with_targets(Batch(main=made), run.tasks))
        loss = run.tasks["lm"].terms(run.model(batch)["lm"], batch.targets["lm"])["loss"]
        return loss / batch.targets["lm"].count

    def other() -> Tensor:
        return F.cross_entropy(theirs(given).logits.flatten(0, 1), following.flatten())

    return (
        training(run.model, loss, own_precision(run, wanted), 1.0),
        training(theirs, other, "float32", 1.0),
        "transformers",
    )


def bert(folder: Path, wanted: str, file: None) -> Pair:
    """Four layers, 256 wide, 16 texts of 128 tokens, of which 15 % are judged; the head is called on these alone."""
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))  # fmt: skip
    run = saved(theirs, folder)
    values, judged = torch.randint(200, 8000, (16, 128)), torch.rand(16, 128) < 0.15
    places = judged.flatten().nonzero()[:, 0]
    targets = Targets(values=values.flatten()[places], places=places)

    def loss() -> Tensor:
        chunks = {"text": Chunks(values=values, index=torch.arange(128))}
        batch = planned(run, Batch(main=SetPlan(tokens=plain_tokens(16, 128), chunks=chunks), targets={"mlm": targets}))
        return nats(run.model(batch)["mlm"], targets.values) / len(places)

    def other() -> Tensor:
        hidden = theirs.bert(values).last_hidden_state.flatten(0, 1)[places]
        return F.cross_entropy(theirs.cls(hidden), targets.values)

    return (training(run.model, loss, own_precision(run, wanted)), training(theirs, other, "float32"), "transformers")


def t5_models(folder: Path) -> tuple[Run, nn.Module]:
    """Three layers on each side, 256 wide."""
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
    """Ids as the encoding `numbers` writes them."""
    return "".join(f"<{id}>" for id in row.tolist())


def t5(folder: Path, wanted: str, file: None) -> Pair:
    """Sixteen texts of 96 tokens to texts of 48."""
    run, theirs = t5_models(folder)
    values, said = torch.randint(5, 8000, (16, 95)), torch.randint(5, 8000, (16, 47))
    samples = [{"source": numbers(row), "target": numbers(out)} for row, out in zip(values, said)]
    split, task = run.given(samples), run.tasks["answer"]
    end = torch.ones(16, 1, dtype=torch.long)
    given, labels = torch.cat([values, end], 1), torch.cat([said, end], 1)

    def loss() -> Tensor:
        batch = planned(run, split.batch(split.all(), training=True))
        loss = task.terms(run.model(batch)["answer"], batch.targets["answer"])["loss"]
        return loss / batch.targets["answer"].count

    other = training(theirs, lambda: theirs(given, labels=labels).loss, "float32")
    return training(run.model, loss, own_precision(run, wanted)), other, "transformers"


def beams(folder: Path, wanted: str, file: None) -> Pair:
    """Eight texts of 32 tokens, 4 beams, 40 tokens each."""
    run, theirs = t5_models(folder)
    values = torch.randint(5, 8000, (8, 31))
    samples = [{"source": numbers(row)} for row in values]
    given = torch.cat([values, torch.ones(8, 1, dtype=torch.long)], 1)
    theirs.eval()

    def others() -> object:
        with torch.inference_mode():
            return theirs.generate(given, num_beams=4, max_new_tokens=40, do_sample=False)

    return lambda: run.predict(samples, search=Search(beams=4), max_tokens=40), others, "transformers"


# ----------------------------------------------------------------------------------------------------------- sounds

SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
            "<|nospeech|>", "<|notimestamps|>")  # fmt: skip


def whisper_models(folder: Path) -> tuple[Run, nn.Module, list[int]]:
    """Whisper-tiny's width and depth, with a small vocabulary."""
    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    coder = Tokenizer(models.BPE(letters, []))
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    end, start, *_ = (coder.token_to_id(name) for name in SPECIALS)
    config = transformers.WhisperConfig(
        vocab_size=8000,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    theirs = transformers.WhisperForConditionalGeneration(config)
    settings = theirs.generation_config
    settings.lang_to_id, settings.is_multilingual = {"<|en|>": coder.token_to_id("<|en|>")}, True
    settings.task_to_id = {name: coder.token_to_id(f"<|{name}|>") for name in ("translate", "transcribe")}
    settings.no_timestamps_token_id = coder.token_to_id("<|notimestamps|>")
    settings.suppress_tokens = [end]
    (folder / "theirs").mkdir()
    coder.save(str(folder / "theirs" / "tokenizer.json"))
    begin = [coder.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe", "notimestamps")]
    return saved(theirs, folder), theirs, begin


def whisper(folder: Path, wanted: str, file: None) -> Pair:
    """Two clips of 30 seconds with 64 tokens each, from the spectrogram on."""
    run, theirs, begin = whisper_models(folder)
    _, chopper = transcriber_of(run)
    windows = torch.stack([chopper.chop(torch.randn(480_000) * 0.1).values[0] for _ in range(2)])
    said = torch.cat([torch.tensor([begin] * 2), torch.randint(5, 250, (2, 60))], 1)
    labels = torch.cat([said[:, 1:], torch.full((2, 1), -100)], 1)
    seconds = torch.arange(1500, dtype=torch.float32)[:, None].repeat(2, 1) * 0.02
    heard = Chunks(values=windows, index=torch.arange(1500).repeat(2), slots=torch.arange(3000), coordinates=seconds,
                   counts=torch.tensor([1500, 1500]))  # fmt: skip

    def loss() -> Tensor:
        encoder = SetPlan(tokens=plain_tokens(2, 1500, axes=2), chunks={"sound": heard})
        written = Chunks(values=said, index=torch.arange(64))
        decoder = SetPlan(tokens=plain_tokens(2, 64, axes=2, input=2), chunks={"text": written})
        targets = Targets(values=labels.flatten())
        batch = Batch(main=decoder, encoder=encoder, targets={"text": targets})
        output = run.model(planned(run, batch))["text"]
        return nats(output, targets.values) / 126

    other = training(theirs, lambda: theirs(windows, decoder_input_ids=said, labels=labels).loss, "float32")
    return training(run.model, loss, own_precision(run, wanted)), other, "transformers"


def transcription(folder: Path, wanted: str, file: None) -> Pair:
    """One window of 30 seconds, greedy; the spectrogram is ready."""
    run, theirs, _ = whisper_models(folder)
    made, chopper = transcriber_of(run)
    window = chopper.chop(torch.randn(480_000) * 0.1).values[0]
    made.protocol = replace_protocol(made.protocol)
    how = Transcribing(beams=1, timestamps=False, temperatures=(0.0,), follow=False)
    room = theirs.config.max_target_positions // 2
    theirs.eval()

    def others() -> object:
        with torch.inference_mode():
            return theirs.generate(window[None], language="en", task="transcribe", max_new_tokens=room, do_sample=False)

    return lambda: made.hear(window, [], "en", how), others, "transformers"


def replace_protocol(protocol: object) -> object:
    """Whisper's protocol in which no text ends."""
    changed = {"suppressed": [protocol.end]}
    return protocol.model_copy(update=changed) if hasattr(protocol, "model_copy") else replace(protocol, **changed)


# --------------------------------------------------------------------------------------------------------- classes


def classified(folder: Path, wanted: str, theirs: nn.Module, logits: Loss, samples: list[dict], peer: str) -> Pair:
    """A classifier that was imported from `folder`, beside the one that it is made of."""
    import_directory(folder, folder.parent / "run")
    run = load_run(folder.parent / "run", device="cpu")
    task, split, labels = run.tasks["label"], run.given(samples), torch.arange(len(samples))

    def loss() -> Tensor:
        batch = planned(run, split.batch(split.all(), training=True))
        targets = batch.targets["label"]
        targets.values.copy_(labels)
        return task.terms(run.model(batch)["label"], targets)["loss"] / len(samples)

    other = training(theirs, lambda: F.cross_entropy(logits(), labels), "float32")
    return training(run.model, loss, own_precision(run, wanted)), other, peer


def vit(folder: Path, wanted: str, file: None) -> Pair:
    """timm's `vit_small_patch16_224` (12 layers, 6 heads, 384 wide, 197 tokens) on four images."""
    name, source = "vit_small_patch16_224", folder / "theirs"
    source.mkdir()
    theirs = timm.create_model(name, pretrained=False)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, source / "model.safetensors")
    data = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    (source / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": data}))
    images = torch.randint(256, (4, 3, 224, 224), dtype=torch.uint8)
    floats = (images.float() / 255 - 0.5) / 0.5
    return classified(source, wanted, theirs, lambda: theirs(floats), [{"image": image} for image in images], "timm")


def ast(folder: Path, wanted: str, file: None) -> Pair:
    """An AST of that width and depth on four sounds of 1.28 seconds (146 tokens)."""
    shape = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "max_length": 128,
        "num_labels": 35,
    }
    theirs, source = transformers.ASTForAudioClassification(transformers.ASTConfig(**shape)), folder / "theirs"
    theirs.save_pretrained(source)
    features = transformers.ASTFeatureExtractor(max_length=128)
    features.save_pretrained(source)
    sounds = [(torch.randn(20_480) * 0.1).numpy() for _ in range(4)]
    values = features(sounds, sampling_rate=16_000, return_tensors="pt")["input_values"]
    samples = [{"sound": (sound, 16_000)} for sound in sounds]
    return classified(source, wanted, theirs, lambda: theirs(values).logits, samples, "transformers")


BENCHMARKS = {"nanogpt": nanogpt, "gpt2": gpt2, "bert": bert, "t5": t5, "whisper": whisper, "ast": ast, "vit": vit,
              "beams": beams, "transcription": transcription}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=BENCHMARKS)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--precision", choices=("float32", "defaults"), default="float32")
    options.add_argument("--model", type=Path, help="nanoGPT's model.py")
    chosen = options.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, peer = BENCHMARKS[chosen.what](Path(folder), chosen.precision, chosen.model)
        several = math.ceil(
            0.2 / max(sum(timed_pairs(ours, theirs, 1)[0]) / 2, 1e-9)
        )  # steps of milliseconds are timed together

        def repeated(run: Callable[[], object]) -> Callable[[], None]:
            def steps() -> None:
                for _ in range(several):
                    run()

            return steps

        row = figures(timed_pairs(repeated(ours), repeated(theirs), chosen.pairs), peer)
    row |= {"ms": row["ms"] / several, "peer_ms": row["peer_ms"] / several, "steps_together": several}
    write_results("peer", [{"what": chosen.what, "precision": chosen.precision, **row}])


if __name__ == "__main__":
    main()
