"""BERT, T5 and Whisper beside transformers' of the same shape and weights: same batches, float32, both eager, in turns.

    python benchmarks/sequence_step.py bert --pairs 9         # a training step
    python benchmarks/sequence_step.py t5 --pairs 9
    python benchmarks/sequence_step.py whisper --pairs 9
    python benchmarks/sequence_step.py beams --pairs 5        # beam search, 4 beams, of the T5
    python benchmarks/sequence_step.py transcription --pairs 5    # greedy, of the Whisper, without timestamps

Ours is `chopmix import` of a randomly initialised model; its batches are chopped, planned and embedded every time. Training
steps include the fused AdamW. Beam search and transcription write a fixed number of tokens, since random models never end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from architectures import saved
from chopmix.models.batch import Batch, Pieces, PlannedSet, Targets
from chopmix.models.beam_search import Search
from chopmix.models.token_set import plain_tokens
from chopmix.models.transcription import Transcribing
from chopmix.tasks.language_modeling import nats
from chopmix.training.build import make_batch
from chopmix.training.run import Run
from chopmix.training.transcribe import transcriber_of
from results import write_results
from torch import Tensor, nn

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
            "<|nospeech|>", "<|notimestamps|>")  # fmt: skip
Pair = tuple[Callable[[], object], Callable[[], object]]
WRITTEN = 40
"""Tokens that beam search and transcription write."""


def stepped(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def bert(folder: Path) -> Pair:
    """Four layers, 256 wide, 16 texts of 128 tokens, of which 15 % are judged."""
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()  # fmt: skip
    run = saved(theirs, folder)
    values = torch.randint(200, 8000, (16, 128))
    judged = torch.rand(16, 128) < 0.15
    labels = values.masked_fill(~judged, -100)
    places = judged.flatten().nonzero()[:, 0]
    targets = Targets(values=values.flatten()[places], places=places)
    model = run.model.train()

    def loss() -> Tensor:
        pieces = {"text": Pieces(values=values, index=torch.arange(128))}
        batch = model.plan(
            Batch(sets={"main": PlannedSet(tokens=plain_tokens(16, 128), pieces=pieces)}, targets={"mlm": targets})
        )
        return nats(model(batch)["mlm"], targets.values) / len(places)

    return stepped(model, loss), stepped(theirs, lambda: theirs(values, labels=labels).loss)


def t5_models(folder: Path) -> tuple[Run, nn.Module]:
    """Three layers on each side, 256 wide."""
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=8000, d_model=256, d_kv=64, d_ff=1024, num_layers=3, num_heads=4, dropout_rate=0.0, decoder_start_token_id=0))  # fmt: skip
    return saved(theirs, folder), theirs


def numbers(row: Tensor) -> str:
    """Ids as the encoding `numbers` writes them."""
    return "".join(f"<{id}>" for id in row.tolist())


def t5(folder: Path) -> Pair:
    """Sixteen texts of 96 tokens to texts of 48."""
    run, theirs = t5_models(folder)
    values, said = torch.randint(5, 8000, (16, 95)), torch.randint(5, 8000, (16, 47))
    samples = [{"source": numbers(row), "target": numbers(out)} for row, out in zip(values, said)]
    split, task, model = run.given(samples), run.tasks["answer"], run.model.train()
    end = torch.ones(16, 1, dtype=torch.long)
    given, labels = torch.cat([values, end], 1), torch.cat([said, end], 1)

    def loss() -> Tensor:
        batch = model.plan(make_batch(split, split.all(), run.tasks, training=True))
        term = task.terms(model(batch)["answer"], batch.targets["answer"])["loss"]
        return term.sum / term.count

    theirs.train()
    return stepped(model, loss), stepped(theirs, lambda: theirs(given, labels=labels).loss)


def beams(folder: Path) -> Pair:
    """Eight texts of 32 tokens, 4 beams."""
    run, theirs = t5_models(folder)
    values = torch.randint(5, 8000, (8, 31))
    samples = [{"source": numbers(row)} for row in values]
    given = torch.cat([values, torch.ones(8, 1, dtype=torch.long)], 1)
    theirs.eval()
    search = Search(beams=4)

    def ours() -> object:
        return run.predict(samples, search=search, max_tokens=WRITTEN)

    def others() -> object:
        with torch.inference_mode():
            return theirs.generate(given, num_beams=4, max_new_tokens=WRITTEN, do_sample=False)

    return ours, others


def whisper_models(folder: Path) -> tuple[Run, nn.Module, list[int]]:
    """Whisper-tiny's width and depth, with a small vocabulary."""
    coder = Tokenizer(
        models.BPE({letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    end, start, *_ = (coder.token_to_id(name) for name in SPECIALS)
    config = transformers.WhisperConfig(
        vocab_size=8000, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=start, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    theirs = transformers.WhisperForConditionalGeneration(config)
    settings = theirs.generation_config
    settings.lang_to_id, settings.is_multilingual = {"<|en|>": coder.token_to_id("<|en|>")}, True
    settings.task_to_id = {name: coder.token_to_id(f"<|{name}|>") for name in ("translate", "transcribe")}
    settings.no_timestamps_token_id = coder.token_to_id("<|notimestamps|>")
    settings.suppress_tokens = [end]
    (folder / "theirs").mkdir()
    coder.save(str(folder / "theirs" / "tokenizer.json"))
    begin = [
        coder.token_to_id(name) for name in ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
    ]
    return saved(theirs, folder), theirs, begin


def whisper(folder: Path) -> Pair:
    """Two clips of 30 seconds with 64 tokens each, from the spectrogram on."""
    run, theirs, begin = whisper_models(folder)
    _, chopper = transcriber_of(run)
    windows = torch.stack([chopper.chop(torch.randn(480_000) * 0.1).values[0] for _ in range(2)])
    said = torch.cat([torch.tensor([begin] * 2), torch.randint(5, 250, (2, 60))], 1)
    labels = torch.cat([said[:, 1:], torch.full((2, 1), -100)], 1)
    model = run.model.train()
    seconds = torch.arange(1500, dtype=torch.float32)[:, None].repeat(2, 1) * 0.02
    places = torch.arange(3000)

    def loss() -> Tensor:
        heard = Pieces(
            values=windows, index=torch.arange(1500).repeat(2), places=places, coordinates=seconds, counts=(1500, 1500)
        )
        sets = {
            "encoder": PlannedSet(tokens=plain_tokens(2, 1500, axes=2), pieces={"sound": heard}),
            "main": PlannedSet(tokens=plain_tokens(2, 64, axes=2, input=2), pieces={"text": Pieces(values=said, index=torch.arange(64))}),
        }  # fmt: skip
        targets = Targets(values=labels.flatten())
        output = model(model.plan(Batch(sets=sets, targets={"text": targets})))["text"]
        return nats(output, targets.values) / 126

    theirs.train()
    return stepped(model, loss), stepped(theirs, lambda: theirs(windows, decoder_input_ids=said, labels=labels).loss)


def transcription(folder: Path) -> Pair:
    """One window of 30 seconds, greedy; the spectrogram is ready."""
    run, theirs, _ = whisper_models(folder)
    made, chopper = transcriber_of(run)
    window = chopper.chop(torch.randn(480_000) * 0.1).values[0]
    made.protocol = type(made.protocol)(**{**vars(made.protocol), "suppressed": [made.protocol.end]})
    how = Transcribing(beams=1, timestamps=False, temperatures=(0.0,), follow=False)
    room = theirs.config.max_target_positions // 2
    theirs.eval()

    def others() -> object:
        with torch.inference_mode():
            return theirs.generate(window[None], language="en", task="transcribe", max_new_tokens=room, do_sample=False)

    return lambda: made.hear(window, [], "en", how), others


BENCHMARKS = {"bert": bert, "t5": t5, "whisper": whisper, "beams": beams, "transcription": transcription}


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=BENCHMARKS)
    options.add_argument("--pairs", type=int, default=9)
    chosen = options.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours, others = BENCHMARKS[chosen.what](Path(folder))
    ours(), others()
    pairs = []
    for number in range(chosen.pairs):  # who comes first changes from pair to pair
        if number % 2:
            own, other = seconds_of(ours), seconds_of(others)
        else:
            other, own = seconds_of(others), seconds_of(ours)
        pairs.append((own, other))
    ratios = sorted(other / own for own, other in pairs)
    rows = [
        {"what": "chopmix", "ms": 1000 * statistics.median(own for own, _ in pairs)},
        {"what": "transformers", "ms": 1000 * statistics.median(other for _, other in pairs)},
        {
            "what": "ratio transformers / chopmix",
            "median": statistics.median(ratios),
            "min": ratios[0],
            "max": ratios[-1],
        },
    ]
    write_results(f"sequence_{chosen.what}", rows)


if __name__ == "__main__":
    main()
