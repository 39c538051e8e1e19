"""Whisper compared with transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import transformers
from architectures import saved
from chopmix.experiment.run import Run
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.tokens import plain_tokens
from chopmix.projects.whisper.transcribing import transcriber_of
from chopmix.projects.whisper.transcription import Transcribing
from chopmix.tasks.language_modeling import nats
from pairs_of.common import Pair, peer_precision, planned, precision_of, training
from torch import Tensor, nn

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
            "<|nospeech|>", "<|notimestamps|>")  # fmt: skip


def whisper_models(folder: Path) -> tuple[Run, nn.Module, list[int]]:
    """Returns our and transformers' model with the width and depth of Whisper-tiny and a small vocabulary, and the ids
    of the prompt."""
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


def whisper(folder: Path, setting: str, file: None) -> Pair:
    """Two spectrograms of 30 seconds with 64 tokens of text each."""
    run, theirs, begin = whisper_models(folder)
    _, chopper = transcriber_of(run)
    windows = torch.stack([chopper.chop(torch.randn(480_000) * 0.1).values[0] for _ in range(2)])
    ids = torch.cat([torch.tensor([begin] * 2), torch.randint(5, 250, (2, 60))], 1)
    labels = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1)
    seconds = torch.arange(1500, dtype=torch.float32)[:, None].repeat(2, 1) * 0.02
    sound = Chunks(values=windows, index=torch.arange(1500).repeat(2), slots=torch.arange(3000), coordinates=seconds,
                   counts=torch.tensor([1500, 1500]))  # fmt: skip

    def loss() -> Tensor:
        encoder = SetPlan(tokens=plain_tokens(2, 1500, axes=2), chunks={"sound": sound})
        text = Chunks(values=ids, index=torch.arange(64))
        decoder = SetPlan(tokens=plain_tokens(2, 64, axes=2, input=2), chunks={"text": text})
        targets = Targets(values=labels.flatten())
        batch = Batch(main=decoder, encoder=encoder, targets={"text": targets})
        output = run.model(planned(run, batch))["text"]
        return nats(output, targets.values) / 126

    other = training(
        theirs, lambda: theirs(windows, decoder_input_ids=ids, labels=labels).loss, peer_precision(setting)
    )
    return training(run.model, loss, precision_of(run.config, setting)), other, "transformers"


def transcription(folder: Path, setting: str, file: None) -> Pair:
    """Greedy transcription of one spectrogram of 30 seconds."""
    run, theirs, _ = whisper_models(folder)
    transcriber, chopper = transcriber_of(run)
    window = chopper.chop(torch.randn(480_000) * 0.1).values[0]
    transcriber.protocol = without_end(transcriber.protocol)
    options = Transcribing(beams=1, timestamps=False, temperatures=(0.0,), follow=False)
    tokens = theirs.config.max_target_positions // 2
    theirs.eval()

    def peer() -> object:
        with torch.inference_mode():
            return theirs.generate(
                window[None], language="en", task="transcribe", max_new_tokens=tokens, do_sample=False
            )

    return lambda: transcriber.hear(window, [], "en", options), peer, "transformers"


def without_end(protocol: object) -> object:
    """Returns Whisper's protocol with the end token suppressed, so that all texts have the same length."""
    changed = {"suppressed": [protocol.end]}
    return protocol.model_copy(update=changed) if hasattr(protocol, "model_copy") else replace(protocol, **changed)
