r"""Imported published weights give the same outputs as the code that they were published with. Run by hand (minutes):

    CHOPMIX_WEIGHTS=DIR CHOPMIX_DATA=../shared/data \
        pytest -m slow tests/experiment/interchange/test_published_weights.py

`DIR` contains directories as transformers saves them: `whisper-tiny.en` (openai/whisper-tiny.en) and `bert` (with
its head for masked tokens and its tokenizer, such as AntiBERTy's). Tests of a missing directory are skipped. Tests that
compare with OpenAI's package need it installed, or its repository on PYTHONPATH.
"""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from chopmix.commands.cli import main
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import Run, load_run
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.tokens import plain_tokens
from chopmix.projects.whisper.transcribing import transcribe
from chopmix.projects.whisper.transcription import Transcribing
from test_transcription import WAYS, assert_same, openai_model

DATA, WEIGHTS = Path(os.environ.get("CHOPMIX_DATA") or "missing"), Path(os.environ.get("CHOPMIX_WEIGHTS") or "missing")
DIGITS = DATA / "fsdd" / "test.tar.gz"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:Performing inference on CPU", "ignore:__array_wrap__", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),  # of OpenAI's package: the last one for a file that it does not close
]


# -----------------------------------------------------------------------------------------------------------------
# Whisper


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> tuple[Run, Path]:
    """Whisper's smallest English model as a run, and its directory."""
    theirs = WEIGHTS / "whisper-tiny.en"
    if not theirs.is_dir():
        raise pytest.skip.Exception(f"needs CHOPMIX_WEIGHTS with {theirs.name}")
    folder = tmp_path_factory.mktemp("whisper") / "run"
    import_directory(theirs, folder)
    return load_run(folder, device="cpu"), theirs


def digits() -> list[tuple[int, np.ndarray]]:
    """Recordings of digits, at 16 kHz, in the order of their names."""
    import soundfile
    import torchaudio

    if not DIGITS.exists():
        raise pytest.skip.Exception("needs CHOPMIX_DATA with fsdd")
    recordings = []
    with tarfile.open(DIGITS) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if member.name.endswith(".flac"):
                clip, rate = soundfile.read(io.BytesIO(archive.extractfile(member).read()), dtype="float32")
                clip = torchaudio.functional.resample(torch.tensor(clip), rate, 16_000).numpy()
                recordings.append((int(Path(member.name).name[0]), clip))
    return recordings


def speech(seconds: float, gap: tuple[float, float], seed: int) -> np.ndarray:
    """Spoken digits, with very quiet noise between them; `gap` is the range of its seconds."""
    dice, noise, recordings = random.Random(seed), np.random.default_rng(seed), digits()
    parts, length = [], 0
    while length < seconds * 16_000:
        between = noise.normal(0, 1e-3, int(16_000 * dice.uniform(*gap))).astype(np.float32)
        parts += [dice.choice(recordings)[1], between]
        length += len(parts[-2]) + len(between)
    return np.concatenate(parts)[: int(seconds * 16_000)]


def noise(seconds: float, loudness: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, loudness, int(seconds * 16_000)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * 16_000), np.float32)


SOUNDS = {
    "speech of 11 s": lambda: speech(11, (0.1, 0.5), 1),
    "speech of 47 s": lambda: speech(47.3, (0.05, 0.4), 3),
    "speech of 100 s": lambda: speech(100, (0.1, 3.0), 4),
    "a word": lambda: speech(0.6, (0.1, 0.6), 6),
    "speech, then silence": lambda: np.concatenate([speech(20, (0.1, 0.6), 5), silence(35)]),
    "silence of 30 s": lambda: silence(30),
    "silence of 45 s": lambda: silence(45),
    "noise of 30 s": lambda: noise(30, 0.1),
    "quiet noise of 70 s": lambda: noise(70, 1e-3),
}
OPTIONS = {
    "default": ({}, {"beam_size": 5, "best_of": 5}),
    **{way: WAYS[way] for way in ("beams", "greedy", "patient", "penalty", "prompt")},
}


@pytest.mark.parametrize("way", OPTIONS)
@pytest.mark.parametrize("sound", SOUNDS)
def test_whisper_transcribes_as_openais_code_does(whisper, sound, way):
    pytest.importorskip("whisper")
    (run, theirs), (ours, openais) = whisper, OPTIONS[way]
    assert_same(run, openai_model(theirs), SOUNDS[sound](), Transcribing(**ours), **openais)


def test_whisper_on_silence_does_not_repeat_itself(whisper):
    """The text equals that of OpenAI's code; the beam search of transformers repeats one sentence thirty times."""
    result = transcribe(whisper[0], (silence(30), 16_000), Transcribing(temperatures=(0.0,)))
    assert [segment.text for segment in result] == ["You"] and result.language == "en"


def test_whisper_transcribes_spoken_digits(whisper, tmp_path, capsys):
    """The commands `transcribe` and `predict` recognize nine of ten digits; the language is right and the times are
    within the file."""
    import soundfile

    spoken = [digits()[place] for place in range(0, 250, 25)]
    clip = np.concatenate([part for _, clip in spoken for part in (clip, silence(0.4))])
    soundfile.write(tmp_path / "digits.wav", clip, 16_000)
    assert main(["transcribe", str(whisper[0].folder), str(tmp_path / "digits.wav"), "--format=json"]) == 0
    written = json.loads((tmp_path / "digits.json").read_text())
    assert written["language"] == "en" and written["segments"][-1]["end"] <= len(clip) / 16_000
    transcribed = numbers(written["text"])
    assert sum(a == b for a, (b, _) in zip(transcribed, spoken)) >= 9 and len(transcribed) <= 11, written["text"]
    capsys.readouterr()
    assert main(["predict", str(whisper[0].folder), "--input", f"sound={tmp_path / 'digits.wav'}"]) == 0
    predicted = json.loads(capsys.readouterr().out.splitlines()[-1])["text"]["text"]
    assert len(numbers(predicted)) >= 9


def numbers(text: str) -> list[int]:
    """The digits that a text names, in words or figures."""
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    values = []
    for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
        values += [names.index(word)] if word in names else [int(c) for c in word if c.isdecimal()]
    return values


# --------------------------------------------------------------------------------------------------------------------
# BERT


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> tuple[Run, Path]:
    """A BERT with its head for masked tokens as a run, and its directory."""
    theirs = WEIGHTS / "bert"
    if not theirs.is_dir():
        raise pytest.skip.Exception(f"needs CHOPMIX_WEIGHTS with {theirs.name}")
    folder = tmp_path_factory.mktemp("bert") / "run"
    import_directory(theirs, folder)
    return load_run(folder, device="cpu"), theirs


def masked_texts(theirs: Path) -> list[str]:
    """Texts whose words are one token each (for AntiBERTy: residues), with one mask."""
    coder, dice = transformers.AutoTokenizer.from_pretrained(theirs), random.Random(0)
    words = [
        word for word, id in sorted(coder.get_vocab().items()) if id not in coder.all_special_ids and word.isalpha()
    ]
    residues = "E V Q L V E S G G G L V Q P G G S L R L S C A A S G F T F S S Y A M S W V R Q A P G K G L E W V S"
    base = residues.split() if set(residues.split()) <= set(words) else dice.sample(words, 45)
    texts = []
    for length in (3, 20, 45):
        text = base[:length]
        text[dice.randrange(length)] = coder.mask_token
        texts.append(" ".join(text))
    return texts


def test_bert_scores_as_transformers_does(bert):
    run, theirs = bert
    coder = transformers.AutoTokenizer.from_pretrained(theirs)
    model = transformers.AutoModelForMaskedLM.from_pretrained(theirs).eval()
    for text in masked_texts(theirs):
        plain = text.replace(coder.mask_token, text.split()[0])
        ids = run.choppers["text"].chop(plain).values
        assert ids.tolist() == coder(plain).input_ids
        with torch.inference_mode():
            expected = model(ids[None]).logits[0]
        pieces = {"text": Chunks(values=ids[None], index=torch.arange(len(ids)))}
        batch = Batch(
            main=SetPlan(tokens=plain_tokens(1, len(ids)), chunks=pieces),
            targets={"mlm": Targets(values=ids)},
        )
        with torch.inference_mode():
            scores = run.model(run.model.plan(batch))["mlm"]
        assert float((scores[:, : expected.shape[1]] - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_bert_fills_masks_in_as_transformers_does(bert, capsys):
    run, theirs = bert
    fill = transformers.pipeline("fill-mask", model=str(theirs), tokenizer=str(theirs), device="cpu")
    for text in masked_texts(theirs):
        assert main(["predict", str(run.folder), "--input", f"text={text}"]) == 0
        (offered,) = json.loads(capsys.readouterr().out.splitlines()[-1])["mlm"]["masks"]
        expected = fill(text, top_k=5)
        assert [each["token"] for each in offered] == [each["token_str"] for each in expected]
        assert [each["probability"] for each in offered] == pytest.approx(
            [each["score"] for each in expected], abs=1e-3
        )
