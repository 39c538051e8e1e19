"""A randomly initialized Whisper of transformers: equal spectrograms, scores and texts; transcription of long files."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.models import heads
from chopmix.models.generation import fast_decoder
from chopmix.projects.whisper import transcription
from chopmix.projects.whisper.decoding import CODES, Candidate, Decoding, sample_texts
from chopmix.projects.whisper.transcribing import as_json, as_srt, transcribe, transcriber_of, write_transcripts
from chopmix.projects.whisper.transcription import Segment, Transcribing, Transcript
from chopmix.tokenizers.audio_stem import AudioStemChopper

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SECONDS = 2
"""The window length of the tiny models, instead of 30 s."""
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
            "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(SECONDS * 50 + 1)]


def tokenizer() -> Tokenizer:
    """Returns a byte-level BPE without merges, followed by Whisper's special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    coder = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    coder.pre_tokenizer, coder.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    coder.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    coder.add_tokens([AddedToken(name, special=False) for name in TIMES])
    return coder


def ids(*names: str) -> list[int]:
    """Returns the ids of special tokens."""
    return [tokenizer().token_to_id(name) for name in names]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Returns the folder of a randomly initialized Whisper with tokenizer and settings, and the model."""
    torch.manual_seed(0)
    coder = tokenizer()
    end, start = ids("<|endoftext|>", "<|startoftranscript|>")
    config = transformers.WhisperConfig(
        vocab_size=coder.get_vocab_size(), num_mel_bins=80, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
        max_source_positions=SECONDS * 50, max_target_positions=40, decoder_start_token_id=start, eos_token_id=end,
        bos_token_id=end, pad_token_id=end, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" not in name:
                parameter.add_(torch.randn(parameter.shape) * (0.6 if "embed_tokens" in name else 0.2))
    settings = model.generation_config
    settings.lang_to_id = dict(zip(("<|en|>", "<|de|>"), ids("<|en|>", "<|de|>")))
    settings.task_to_id = dict(zip(("transcribe", "translate"), ids("<|transcribe|>", "<|translate|>")))
    settings.no_timestamps_token_id, settings.is_multilingual = ids("<|notimestamps|>")[0], True
    settings.suppress_tokens = [
        3,
        7,
        *ids(
            "<|startoftranscript|>",
            "<|startofprev|>",
            "<|nospeech|>",
            "<|startoflm|>",
            "<|en|>",
            "<|de|>",
            "<|translate|>",
            "<|transcribe|>",
            "<|notimestamps|>",
        ),
    ]
    settings.begin_suppress_tokens, settings.max_initial_timestamp_index = [220 % 256, end], 50
    folder = tmp_path_factory.mktemp("whisper")
    model.eval().save_pretrained(folder / "theirs")
    coder.save(str(folder / "theirs" / "tokenizer.json"))
    import_directory(folder / "theirs", folder / "run")
    return folder, model


def sound(seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Returns intermittent tones in noise."""
    random, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * time) * (np.sin(2 * np.pi * time / p) > 0)
        for f, p in ((440, 0.5), (1200, 0.7), (3000, 1.1))
    )
    return (0.2 * tones + 0.02 * random.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [30.0, 11.3, 0.7])
def test_the_spectrogram_equals_transformers(seconds, mels):
    extractor = transformers.WhisperFeatureExtractor(feature_size=mels)
    expected = extractor(sound(seconds), sampling_rate=16_000, return_tensors="pt")["input_features"][0]
    chopper = AudioStemChopper(mels=mels)
    chunk = chopper.chop(chopper.decode((sound(seconds), 16_000)))
    assert chunk.count == 1500 and chunk.values.shape == (1, mels, 3000)
    torch.testing.assert_close(chunk.values[0], expected, rtol=0, atol=1e-4)


def test_whisper_returns_the_same_scores(directory):
    folder, theirs = directory
    run = load_run(folder / "run")
    transcriber, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    begin = [*ids("<|startoftranscript|>", "<|en|>", "<|transcribe|>"), 5, 9, 77]
    sets = transcriber.plan(window, begin)
    with torch.no_grad():
        planned = run.model.plan(sets)
        read = run.model.read(planned)
        scores = run.model.heads["text"](read.main[0])
        expected = theirs(window[None], decoder_input_ids=torch.tensor([begin])).logits[0]
    assert float((scores - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_whisper_generates_the_same_texts(directory, timestamps, seed):
    """With greedy decoding. Beam search is that of OpenAI, which differs from transformers (test_transcription.py)."""
    folder, theirs = directory
    run = load_run(folder / "run")
    transcriber, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(seed=seed), 16_000))).values[0]
    how = Transcribing(beams=1, timestamps=timestamps, temperatures=(0.0,))
    decoding = transcriber.hear(window, [], "en", how)
    with torch.no_grad():
        expected = theirs.generate(
            window[None], language="en", task="transcribe", return_timestamps=timestamps, num_beams=1,
            do_sample=False, max_new_tokens=20, return_dict_in_generate=False,
        )[0].tolist()  # fmt: skip
    begin = transcriber.prompt([], "en", how)
    expected = expected[len(begin) :] if expected[: len(begin)] == begin else expected
    end = ids("<|endoftext|>")[0]
    expected = [id for id in expected if id != end]
    assert decoding.ids[: len(expected)] == expected or decoding.ids == expected[: len(decoding.ids)]
    assert min(len(decoding.ids), len(expected)) > 2


def test_language_and_silence_are_predicted_from_the_start(directory):
    folder, theirs = directory
    run = load_run(folder / "run")
    transcriber, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    name, probabilities = transcriber.detect(window)
    start, silent = ids("<|startoftranscript|>", "<|nospeech|>")
    with torch.no_grad():
        scores = theirs(window[None], decoder_input_ids=torch.tensor([[start]])).logits[0, 0]
    expected = dict(zip(("en", "de"), scores[ids("<|en|>", "<|de|>")].softmax(-1).tolist()))
    assert name == max(expected, key=expected.get) and probabilities == pytest.approx(expected, rel=1e-3)
    decoding = transcriber.hear(window, [], "en", Transcribing(temperatures=(0.0,), beams=1))
    assert decoding.no_speech == pytest.approx(float(scores.softmax(-1)[silent]), rel=1e-3)


# ------------------------------------------------------------------------------------------------------ complete files


@pytest.mark.parametrize("seed, seconds", [(0, 5.3), (1, 3.5), (2, 4.7)])
def test_long_files_have_the_segments_of_transformers(directory, seed, seconds):
    folder, theirs = directory
    run = load_run(folder / "run")
    theirs.generation_config.prev_sot_token_id = ids("<|startofprev|>")[0]
    clip = sound(seconds, seed)
    how = Transcribing(
        language="en", beams=1, temperatures=(0.0,), silence=1.0, follow=False, confidence=-1e9, compression=1e9
    )
    features = transformers.WhisperFeatureExtractor(feature_size=80)(
        clip, sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest", return_attention_mask=True
    )
    with torch.no_grad():
        expected = theirs.generate(
            features["input_features"], attention_mask=features["attention_mask"], language="en", task="transcribe",
            return_timestamps=True, num_beams=1, do_sample=False, return_segments=True, condition_on_prev_tokens=False,
        )["segments"][0]  # fmt: skip
    segments = [(segment.start, segment.end) for segment in transcribe(run, (clip, 16_000), how)]
    times = [(round(float(s["start"]), 2), round(float(s["end"]), 2)) for s in expected]
    assert segments == [(start, min(end, seconds)) for start, end in times if start < seconds] and len(segments) > 1


@pytest.mark.parametrize("redirected", [pytest.param(False, marks=pytest.mark.system), True])
def test_transcription_in_a_terminal(directory, tmp_path, redirected):
    """With a progress bar on the terminal. Standard output may be a file."""
    import pty

    import soundfile

    folder, _ = directory
    soundfile.write(tmp_path / "a.wav", sound(1.5), 16_000)
    command = [sys.executable, "-m", "chopmix.commands.cli", "transcribe", str(folder / "run"), str(tmp_path / "a.wav"),
               "--temperature", "0", "--beams", "1", "--language", "en"]  # fmt: skip
    ours, theirs = pty.openpty()
    with open(tmp_path / "text", "w") as text:
        process = subprocess.Popen(command, stdout=text if redirected else theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other end is closed
            pass
    assert process.wait() == 0, shown
    os.close(ours)
    output = (tmp_path / "text").read_bytes() if redirected else shown
    assert b"[00:00:0" in output and b" --> 00:00:0" in output


def test_two_files_with_one_output_are_refused(directory, tmp_path):
    run = load_run(directory[0] / "run")
    with pytest.raises(RunError, match="would both be written to"):
        write_transcripts(run, ["a/talk.wav", "b/talk.mp3"], Transcribing(), ["txt"], tmp_path)
    with pytest.raises(ValueError, match="no language 'xx'"):
        write_transcripts(run, ["a/talk.wav"], Transcribing(language="xx"), ["txt"], tmp_path)


# ---------------------------------------------------------------------------------------------------------- as a user


def test_long_files_from_the_command_line(directory, tmp_path, capsys):
    import soundfile

    folder, _ = directory
    soundfile.write(tmp_path / "long.wav", np.stack([sound(5.3, seed=3)] * 2, axis=1), 16_000)
    soundfile.write(tmp_path / "short.flac", sound(0.3), 16_000)
    arguments = [
        "transcribe",
        str(folder / "run"),
        str(tmp_path / "long.wav"),
        str(tmp_path / "missing.wav"),
        str(tmp_path / "short.flac"),
        "--output",
        str(tmp_path / "out"),
        "--temperature",
        "0",
        "--beams",
        "1",
    ]
    status = main([*arguments, *(f"--format={kind}" for kind in ("txt", "json", "srt", "vtt"))])
    shown = capsys.readouterr()
    assert status == 1 and "missing.wav does not exist" in shown.err
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {f"{stem}.{kind}" for stem in ("long", "short") for kind in ("txt", "json", "srt", "vtt")}
    written = json.loads((tmp_path / "out" / "long.json").read_text())
    assert all(0 <= part["start"] < part["end"] for part in written["segments"])
    assert "".join(written["text"].split()) == "".join("".join(part["text"] for part in written["segments"]).split())
    assert f"long.wav: language {written['language']}" in shown.err  # the detected language is printed


def test_progress_is_reported_in_python(directory):
    folder, _ = directory
    run, progress = load_run(folder / "run"), []
    how = Transcribing(beams=1, temperatures=(0.0,), silence=1.0)
    list(transcribe(run, (sound(3.0), 16_000), how, lambda done, total: progress.append((done, total))))
    assert progress[-1] == (3.0, 3.0)
    with pytest.raises(ValueError, match="no language 'xx'; possible: de, en"):
        list(transcribe(run, (sound(1.0), 16_000), Transcribing(language="xx")))


def test_an_output_that_cannot_be_written_is_refused_before_decoding(directory, tmp_path, capsys):
    (tmp_path / "a").write_text("")
    assert main(["transcribe", str(directory[0] / "run"), "x.wav", "--format=txt", f"--output={tmp_path / 'a'}"]) != 0
    shown = capsys.readouterr()
    assert "a cannot be written to: File exists" in shown.err and "x.wav" not in shown.err


def test_languages_have_a_code_a_name_and_a_token(directory):
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    assert {name: code for name, code in TO_LANGUAGE_CODE.items() if name != code} == CODES
    transcriber, _ = transcriber_of(load_run(directory[0] / "run"))
    for language in ("de", "DE", "German", "<|de|>"):
        assert transcriber.language(Transcribing(language=language)) == "de"
        transcriber.check(Transcribing(language=language))
    assert transcriber.language(Transcribing()) is None  # detected
    transcriber.protocol = transcriber.protocol.model_copy(update={"language": "de"})
    assert transcriber.language(Transcribing()) == "de" and transcriber.language(Transcribing(language="en")) == "en"


def test_the_fine_tuned_language_is_the_default(directory, tmp_path):
    shutil.copytree(directory[0] / "theirs", tmp_path / "theirs")
    file = tmp_path / "theirs" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language": "german"}))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    transcriber, _ = transcriber_of(load_run(tmp_path / "run"))
    assert transcriber.protocol.language == "de"


def test_no_spaces_are_added_to_texts():
    decoding = Decoding([], 0.0, 0.0, 0.0, 1.0)
    parts = [Segment(0.0, 1.0, "\u4eca\u65e5\u306f", decoding, []), Segment(1.0, 2.0, "\u3044\u3044", decoding, [])]
    assert json.loads(as_json(Transcript("ja", parts)))["text"] == "\u4eca\u65e5\u306f\u3044\u3044"
    parts = [Segment(0.0, 1.0, " So it", decoding, []), Segment(1.0, 2.0, " is.", decoding, [])]
    record = json.loads(as_json(Transcript("en", parts)))
    assert (record["text"], record["language"]) == ("So it is.", "en") and as_srt(parts).splitlines()[2] == "So it"


def test_a_silent_file_has_a_language(directory, tmp_path):
    run, clip = load_run(directory[0] / "run"), (sound(3.0), 16_000)
    silent = Transcribing(confidence=None, silence=0.0)
    record = json.loads(as_json(transcribe(run, clip, silent)))
    transcriber, chopper = transcriber_of(run)
    detected, _ = transcriber.detect(chopper.chop(chopper.decode((sound(SECONDS), 16_000))).values[0])
    assert record == {"language": detected, "text": "", "segments": []}
    transcript = transcribe(run, clip, replace(silent, language="German"))
    assert transcript.language == "de" and list(transcript) == []
    english = changed(directory, tmp_path, "generation_config.json", is_multilingual=False)
    import_directory(english, tmp_path / "run")
    assert json.loads(as_json(transcribe(load_run(tmp_path / "run"), clip, silent)))["language"] == "en"


def changed(directory, folder: Path, name: str, **values) -> Path:
    """Returns a copy of the directory with other values in one of its JSON files."""
    shutil.copytree(directory[0] / "theirs", folder / "theirs")
    file = folder / "theirs" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder / "theirs"


def test_tokens_of_prompts_are_never_generated(directory, tmp_path):
    """Many fine-tuned models do not suppress them in their directory."""
    theirs = changed(directory, tmp_path, "generation_config.json", suppress_tokens=[5])
    import_directory(theirs, tmp_path / "run")
    transcriber, _ = transcriber_of(load_run(tmp_path / "run"))
    names = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    assert transcriber.protocol.suppressed == [5, *ids(*(f"<|{name}|>" for name in names))]


def test_a_window_is_encoded_once_for_all_temperatures(directory):
    run, passes = load_run(directory[0] / "run"), []
    transcriber, chopper = transcriber_of(run)
    run.model.cores["encoder"].blocks[0].register_forward_hook(lambda *_: passes.append(1))
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    decoding = transcriber.hear(window, [], "en", Transcribing(confidence=1.0, silence=None))
    assert decoding.temperature == 1.0 and len(passes) == 1


@pytest.mark.parametrize("how", [{"beams": 1}, {"beams": 3}, {"temperatures": (1.0,)}])
@pytest.mark.parametrize("context, length", [([], 20), ([*range(9)], 20), ([*range(30)], 18)])
def test_the_maximum_length_is_half_the_context_or_the_free_space(directory, how, context, length):
    """Of 40 tokens, 19 are for the preceding text and four for the prompt. The last token is not an input."""
    transcriber, chopper = transcriber_of(load_run(directory[0] / "run"))
    endless = [*transcriber.protocol.suppressed, transcriber.protocol.end]
    transcriber.protocol = transcriber.protocol.model_copy(update={"suppressed": endless})
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    decoding = transcriber.hear(window, context, "en", Transcribing(**{"temperatures": (0.0,)} | how, timestamps=False))
    assert len(decoding.ids) == length - (len(context) > 19)  # without timestamps the prompt has one more token


def test_a_fallback_samples_several_texts_and_uses_the_best(directory, monkeypatch):
    transcriber, chopper = transcriber_of(load_run(directory[0] / "run"))
    window, ranks = chopper.chop(chopper.decode((sound(), 16_000))).values[0], set()
    samples: list[list[Candidate]] = []

    def spied(*args, **how) -> list[Candidate]:
        samples.append(sample_texts(*args, **how))
        return samples[-1]

    monkeypatch.setattr(transcription, "sample_texts", spied)
    for seed in range(3):
        how = Transcribing(beams=1, temperatures=(0.0, 1.0), best_of=3, confidence=1.0, silence=None, seed=seed)
        decoding = transcriber.hear(window, [], "en", how)
        means = [text.log / max(len(text.ids), 1) for text in samples[seed]]
        assert decoding.temperature == 1.0 and len(means) == 3
        assert decoding.ids == samples[seed][means.index(max(means))].ids
        ranks.add(means.index(max(means)))
    assert len(samples) == 3 and len(ranks) > 1


def test_sampling_is_reproducible_with_a_seed(directory):
    run = load_run(directory[0] / "run")

    def sampled_ids(seed: int) -> list[list[int]]:
        how = Transcribing(temperatures=(1.0,), seed=seed, silence=None, language="en")
        return [segment.ids for segment in transcribe(run, (sound(3.0), 16_000), how)]

    assert sampled_ids(0) == sampled_ids(0) != sampled_ids(1)


@pytest.mark.parametrize("how", [
    {"temperatures": (1.0,), "language": "en"}, {"language": "en", "beams": 2}, {"language": None},
])  # fmt: skip
def test_outputs_that_are_not_finite_are_refused(directory, how):
    """In sampling, in beam search, and in the detection of the language."""
    run = load_run(directory[0] / "run")
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.mul_(1e30)
    with pytest.raises(ValueError, match="the model's outputs are NaN or infinite"):
        list(transcribe(run, (sound(3.0), 16_000), Transcribing(silence=None, **how)))


@pytest.mark.parametrize("damage, message", [
    (lambda whisper: whisper.pop("start"), "encoding.json: whisper: start: it is missing"),
    (lambda whisper: whisper.update(end=-1), "encoding.json: whisper: end: must be greater than or equal to 0, not -1"),
    (lambda whisper: whisper.update(timestamps=10**6), "encoding.json: whisper: id 1000000 is outside the "
     "model's vocabulary of 367"),
    (lambda whisper: whisper.update(suppressed=[4, "x"]), "encoding.json: whisper: suppressed.1: must be a "
     "whole number, not 'x'"),
    (lambda whisper: whisper.update(languages=[1]), "encoding.json: whisper: languages: must be "),
    (lambda whisper: whisper.update(language="xx"), "encoding.json: whisper: the language 'xx' is not in its "
     "languages"),
    (lambda whisper: whisper.update(latest_start=2**40), "encoding.json: whisper: latest_start: must be less than"),
])  # fmt: skip
def test_a_damaged_protocol_is_refused(directory, tmp_path, capsys, damage, message):
    shutil.copytree(directory[0] / "run", tmp_path / "run")
    file = tmp_path / "run" / "assets" / "text" / "encoding.json"
    record = json.loads(file.read_text())
    damage(record["frame"]["whisper"])
    file.write_text(json.dumps(record))
    with pytest.raises(DataError, match=message):
        transcriber_of(load_run(tmp_path / "run"))
    assert main(["transcribe", str(tmp_path / "run"), "x.wav"]) != 0
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("count, message", [
    (SECONDS * 100, f"embed_positions are {SECONDS * 50}, but max_source_positions is {SECONDS * 100}"),
    (2**17, "max_source_positions is 131072; it must be less than or equal to 16384"),
])  # fmt: skip
def test_the_window_length_of_the_weights_is_checked(directory, tmp_path, count, message):
    shutil.copytree(directory[0] / "theirs", tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_source_positions": count}))
    with pytest.raises(RunError, match=message):
        import_directory(tmp_path / "theirs", tmp_path / "run")


def test_a_context_that_is_too_short_is_refused(directory, tmp_path):
    theirs = copy.deepcopy(directory[1])
    table = theirs.model.decoder.embed_positions
    table.weight = torch.nn.Parameter(table.weight[:7].clone())
    theirs.config.max_target_positions = theirs.generation_config.max_length = 7
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer().save(str(tmp_path / "theirs" / "tokenizer.json"))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    with pytest.raises(RunError, match="run has a context of 7; a Whisper needs at least 8"):
        transcriber_of(load_run(tmp_path / "run"))


def test_restored_texts_have_no_leading_space(directory):
    text = load_run(directory[0] / "run").choppers["text"].vocabulary
    assert text.restore(text.encode(" So it is.")) == "So it is."


def test_predicted_texts_have_no_leading_space(directory, tmp_path, monkeypatch, capsys):
    """The scores are replaced so that the model generates " So."."""
    import soundfile

    text = load_run(directory[0] / "run").choppers["text"].vocabulary
    generated = iter([*text.encode(" So."), *ids("<|endoftext|>")])

    def scores(embedding: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(generated)]), len(embedding)).float()

    monkeypatch.setattr(heads.Tied, "forward", lambda head, x, targets=None: scores(head.table))
    monkeypatch.setattr(fast_decoder, "fast_head", lambda head: head)
    soundfile.write(tmp_path / "a.wav", sound(1.0), 16_000)
    assert main(["predict", str(directory[0] / "run"), "--input", f"sound={tmp_path / 'a.wav'}"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == {"text": "So."}


def test_an_imported_run_knows_its_folder(directory):
    folder = directory[0] / "run"
    assert yaml.safe_load((folder / "config.yaml").read_text())["out"] == str(folder)
    assert load_run(folder).config.out == folder


def test_an_imported_run_has_no_data(directory, capsys):
    assert main(["evaluate", str(directory[0] / "run")]) != 0
    assert "run was imported without data; name a data set with --data" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("config", [{"suppress_ids": [1], "lang_ids": []}, None])
def test_a_directory_of_ctranslate2_is_refused(tmp_path, config):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "model.bin").write_bytes(b"\0" * 8)
    if config is not None:
        (theirs / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="CTranslate2"):
        import_directory(theirs, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_directories_are_read(directory, tmp_path, dtype):
    _, theirs = directory
    copy.deepcopy(theirs).to(dtype).save_pretrained(tmp_path / "theirs")
    tokenizer().save(str(tmp_path / "theirs" / "tokenizer.json"))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    table = load_run(tmp_path / "run").model.state_dict()["tokenizers.text.embedding.weight"]
    torch.testing.assert_close(table, theirs.model.decoder.embed_tokens.weight.to(dtype).float(), rtol=0, atol=0)


def test_weights_in_unsupported_files_are_refused(directory, tmp_path):
    shutil.copytree(directory[0] / "theirs", tmp_path / "theirs")
    weights = tmp_path / "theirs" / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(RunError, match="a pointer of Git LFS"):
        import_directory(tmp_path / "theirs", tmp_path / "run")
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(RunError, match="pytorch_model.bin is not read, since it can execute code"):
        import_directory(tmp_path / "theirs", tmp_path / "run")


def test_ids_of_a_tokenizer_in_parts_are_checked(directory, tmp_path):
    shutil.copytree(directory[0] / "theirs", tmp_path / "theirs")
    vocabulary = json.loads(tokenizer().to_str())["model"]["vocab"]
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    (tmp_path / "theirs" / "merges.txt").write_text("#version: 0.2\n")
    added = dict(zip([*SPECIALS, *TIMES], ids(*SPECIALS, *TIMES)))
    (tmp_path / "theirs" / "added_tokens.json").write_text(json.dumps(added))
    (tmp_path / "theirs" / "vocab.json").write_text(json.dumps(vocabulary))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    vocabulary.popitem()  # a gap moves all following ids
    (tmp_path / "theirs" / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(RunError, match=r"<\|endoftext\|> is id 256 in added_tokens.json, but 255"):
        import_directory(tmp_path / "theirs", tmp_path / "other")


def test_unsupported_directories_are_refused(directory, tmp_path):
    folder, _ = directory
    config = json.loads((folder / "theirs" / "config.json").read_text())
    weights = (folder / "theirs" / "model.safetensors").read_bytes()

    def changed(name: str, files: bool = True, **options):
        target = tmp_path / name
        target.mkdir()
        (target / "config.json").write_text(json.dumps(config | options))
        (target / "model.safetensors").write_bytes(weights)
        if files:
            tokenizer().save(str(target / "tokenizer.json"))
        return target

    with pytest.raises(RunError, match="has no tokenizer.json"):
        import_directory(changed("a", files=False), tmp_path / "ra")
    with pytest.raises(ValueError, match="activation_function is 'relu'; only 'gelu' is reproduced exactly"):
        import_directory(changed("b", activation_function="relu"), tmp_path / "rb")
    with pytest.raises(ValueError, match="encoder_ffn_dim and decoder_ffn_dim differ"):
        import_directory(changed("c", encoder_ffn_dim=64), tmp_path / "rc")
    with pytest.raises(DataError, match=r"tokenizer.json has \d+ ids, more than config.json's vocab_size \(100\)"):
        import_directory(changed("d", vocab_size=100), tmp_path / "rd")
