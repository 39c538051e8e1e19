"""Whisper of transformers, randomly initialised: the same spectrogram, scores and texts; and what is made of a long file."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from chopmix.models.batch import Batch
from chopmix.models.languages import CODES
from chopmix.models.transcription import Protocol, Said, Segment, Transcriber, Transcribing
from chopmix.tokenizers.audio_stem import AudioStemChopper
from chopmix.tokenizers.files import DataError
from chopmix.training.cli import main
from chopmix.training.imports import import_directory
from chopmix.training.run import RunError, load_run
from chopmix.training.transcribe import as_json, as_srt, as_vtt, clock, transcribe, transcriber_of, write_transcripts

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SECONDS = 2
"""What the tiny models hear at a time, instead of 30."""
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
            "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(SECONDS * 50 + 1)]


def tokenizer() -> Tokenizer:
    """A byte-level BPE without merges, and Whisper's special tokens behind it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    found.pre_tokenizer, found.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    found.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    found.add_tokens([AddedToken(name, special=False) for name in TIMES])
    return found


def ids(*names: str) -> list[int]:
    """The ids of special tokens."""
    return [tokenizer().token_to_id(name) for name in names]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A randomly initialised Whisper, with its tokenizer and settings, and the model itself."""
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
    settings.suppress_tokens = [3, 7, *ids("<|startoftranscript|>", "<|startofprev|>", "<|nospeech|>", "<|startoflm|>",
                                           "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")]  # fmt: skip
    settings.begin_suppress_tokens, settings.max_initial_timestamp_index = [220 % 256, end], 50
    folder = tmp_path_factory.mktemp("whisper")
    model.eval().save_pretrained(folder / "theirs")
    coder.save(str(folder / "theirs" / "tokenizer.json"))
    import_directory(folder / "theirs", folder / "run")
    return folder, model


def sound(seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Tones that come and go, in noise."""
    random, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * time) * (np.sin(2 * np.pi * time / p) > 0)
        for f, p in ((440, 0.5), (1200, 0.7), (3000, 1.1))
    )
    return (0.2 * tones + 0.02 * random.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [30.0, 11.3, 0.7])
def test_the_spectrogram_is_transformers(seconds, mels):
    extractor = transformers.WhisperFeatureExtractor(feature_size=mels)
    expected = extractor(sound(seconds), sampling_rate=16_000, return_tensors="pt")["input_features"][0]
    chopper = AudioStemChopper(mels=mels)
    found = chopper.chop(chopper.decode((sound(seconds), 16_000)))
    assert found.count == 1500 and found.values.shape == (1, mels, 3000)
    torch.testing.assert_close(found.values[0], expected, rtol=0, atol=1e-4)


def test_whisper_gives_the_same_scores(directory):
    folder, theirs = directory
    run = load_run(folder / "run")
    made, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    begin = [*ids("<|startoftranscript|>", "<|en|>", "<|transcribe|>"), 5, 9, 77]
    sets = made.plan(window, begin)
    with torch.no_grad():
        planned = run.model.plan(Batch(sets=sets))
        read = run.model.read(planned)
        found = run.model.heads["text"](read["main"][0])
        expected = theirs(window[None], decoder_input_ids=torch.tensor([begin])).logits[0]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_whisper_says_the_same(directory, beams, timestamps, seed):
    folder, theirs = directory
    run = load_run(folder / "run")
    made, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(seed=seed), 16_000))).values[0]
    how = Transcribing(beams=beams, timestamps=timestamps, temperatures=(0.0,))
    said = made.hear(window, [], "en", how)
    with torch.no_grad():
        expected = theirs.generate(
            window[None], language="en", task="transcribe", return_timestamps=timestamps, num_beams=beams,
            do_sample=False, max_new_tokens=20, return_dict_in_generate=False,
        )[0].tolist()  # fmt: skip
    begin = made.prompt([], "en", how)
    expected = expected[len(begin) :] if expected[: len(begin)] == begin else expected
    end = ids("<|endoftext|>")[0]
    expected = [id for id in expected if id != end]
    assert said.ids[: len(expected)] == expected or said.ids == expected[: len(said.ids)]
    assert min(len(said.ids), len(expected)) > 2


def test_the_language_and_the_silence_are_read_off_the_start(directory):
    folder, theirs = directory
    run = load_run(folder / "run")
    made, chopper = transcriber_of(run)
    window = chopper.chop(chopper.decode((sound(), 16_000))).values[0]
    name, chances = made.detect(window)
    start, silent = ids("<|startoftranscript|>", "<|nospeech|>")
    with torch.no_grad():
        scores = theirs(window[None], decoder_input_ids=torch.tensor([[start]])).logits[0, 0]
    expected = dict(zip(("en", "de"), scores[ids("<|en|>", "<|de|>")].softmax(-1).tolist()))
    assert name == max(expected, key=expected.get) and chances == pytest.approx(expected, rel=1e-3)
    said = made.hear(window, [], "en", Transcribing(temperatures=(0.0,), beams=1))
    assert said.no_speech == pytest.approx(float(scores.softmax(-1)[silent]), rel=1e-3)


# -------------------------------------------------------------------------------------------------- the protocol alone


def protocol() -> Protocol:
    """Ids: 0 to 9 are words, 10 ends, 11 and 12 ask, then timestamps from 20 on."""
    return Protocol(start=11, end=10, transcribe=12, translate=13, previous=14, no_speech=15, no_timestamps=16, timestamps=20,
                    languages={"en": 17}, suppressed=(3,), suppressed_first=(10,), latest_start=5)  # fmt: skip


class Scripted(Transcriber):
    """Says what it is told to, window by window and try by try."""

    def __init__(self, script):
        self.script, self.asked = list(script), []
        self.protocol, self.decode, self.frames, self.hop = protocol(), lambda ids: " ".join(map(str, ids)), 3000, 0.01
        self.model = type("Model", (), {"context": 40})
        self.plan, self.names = lambda window, ids: ids, {"input": "text"}

    def say(self, sets, source, temperature, how):
        self.asked.append((list(sets), temperature))
        said = self.script.pop(0)
        return said._replace(temperature=temperature), source


def said(*ids: int, log: float = -0.1, no_speech: float = 0.0, compression: float = 1.0) -> Said:
    return Said(list(ids), log, no_speech, 0.0, compression)


def run_script(script, frames: int, **options):
    made = Scripted(script)
    found = list(made.transcribe(torch.zeros(4, frames + 3000), frames, Transcribing(language="en", **options)))
    return found, made


def test_the_next_window_begins_at_the_last_timestamp():
    script = [said(20, 1, 70, 70, 2, 2, 520, 520), said(20, 4, 45)]
    found, made = run_script(script, 2000)
    assert [(s.start, s.end, s.text) for s in found] == [(0.0, 1.0, "1"), (1.0, 10.0, "2 2"), (10.0, 10.5, "4")]
    assert made.script == []  # the second window began at 10 s, and ended alone: it was heard to its end
    assert made.asked[1][0][:2] == [14, 20]  # and was read behind what had been said


def test_what_will_be_heard_again_is_not_told_to_the_next_window():
    """What follows the last pair of timestamps is heard again: it is no context (as in OpenAI's and transformers' code)."""
    script = [said(20, 1, 70, 70, 2, 2), said(20, 2, 2, 60, 60, 5), said(20, 5, 45)]
    _, made = run_script(script, 3000)
    assert made.asked[1][0] == [14, 20, 1, 70, 11, 17, 12]
    assert made.asked[2][0] == [14, 20, 1, 70, 20, 2, 2, 60, 11, 17, 12]


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
    found = [(segment.start, segment.end) for segment in transcribe(run, (clip, 16_000), how)]
    assert found == [(round(float(s["start"]), 2), round(float(s["end"]), 2)) for s in expected] and len(found) > 1


@pytest.mark.parametrize("redirected", [False, True])
def test_transcription_in_a_terminal(directory, tmp_path, redirected):
    """With a progress bar on a terminal, and the text in a file where it is sent to one."""
    import pty

    import soundfile

    folder, _ = directory
    soundfile.write(tmp_path / "a.wav", sound(1.5), 16_000)
    command = [sys.executable, "-m", "chopmix.training.cli", "transcribe", str(folder / "run"), str(tmp_path / "a.wav"),
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
    said = (tmp_path / "text").read_bytes() if redirected else shown
    assert b"[00:00:0" in said and b" --> 00:00:0" in said


def test_two_files_of_one_name_are_not_written_to_one(directory, tmp_path):
    run = load_run(directory[0] / "run")
    with pytest.raises(RunError, match="would both be written to"):
        write_transcripts(run, ["a/talk.wav", "b/talk.mp3"], Transcribing(), ["txt"], tmp_path)
    with pytest.raises(ValueError, match="no language 'xx'"):
        write_transcripts(run, ["a/talk.wav"], Transcribing(language="xx"), ["txt"], tmp_path)


def test_a_window_that_repeats_itself_is_said_again_at_a_higher_temperature():
    script = [said(20, 1, 1, 1, 60, compression=3.0), said(20, 1, 60, log=-2.0), said(20, 2, 60)]
    found, made = run_script(script, 1000)
    assert [temperature for _, temperature in made.asked] == [0.0, 0.2, 0.4]
    assert [s.text for s in found] == ["2"]


def test_silence_gives_no_text():
    found, made = run_script([said(20, 1, 60, log=-2.0, no_speech=0.9)], 1000)
    assert found == [] and len(made.asked) == 1
    found, _ = run_script([said(20, 1, 60, log=-0.2, no_speech=0.9)], 1000)
    assert [s.text for s in found] == ["1"]  # sure of its words


def test_after_a_high_temperature_the_next_window_is_read_alone():
    script = [said(20, 1, 60, 60, log=-3.0)] * 6 + [said(20, 2, 45)]
    _, made = run_script(script, 1500)
    assert made.asked[-1][0][0] == 11  # no <|startofprev|>
    _, made = run_script([said(20, 1, 60, 60), said(20, 2, 45)], 1500, follow=False)
    assert made.asked[-1][0][0] == 11


def test_timestamps_come_in_pairs_and_never_go_back():
    made = Scripted([])
    how = Transcribing()

    def allowed(*text: int) -> set[int]:
        likely = torch.cat(
            [torch.full((1, 20), 5.0), torch.zeros(1, 20)], dim=1
        )  # words, above all timestamps together
        scores = made.allowed(likely, [list(text)], how)[0]
        return {id for id, score in enumerate(scores.tolist()) if score > -1e30}

    assert allowed() == set(range(20, 26))  # begins with a timestamp, not later than the fifth
    assert not {id for id in allowed(22) if id >= 20} and 3 not in allowed(22)  # words after one
    assert min(id for id in allowed(22, 1) if id >= 20) == 23  # a segment takes time
    after = allowed(22, 1, 25)
    assert min(id for id in after if id >= 20) == 25 and min(after) == 10  # its partner, or the end
    assert 25 not in allowed(22, 1, 25, 25)
    without = Transcribing(timestamps=False)
    first = made.allowed(torch.zeros(1, 40), [[]], without)[0]
    assert first[10] == -torch.inf and first[3] == -torch.inf and first[1] == 0


def test_subtitles():
    found, _ = run_script([said(20, 1, 70, 70, 2, 120)], 3000)
    assert as_srt(found) == "1\n00:00:00,000 --> 00:00:01,000\n1\n\n2\n00:00:01,000 --> 00:00:02,000\n2\n"
    assert as_vtt(found).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n1\n")
    assert clock(3723.5, ",") == "01:02:03,500"


# ---------------------------------------------------------------------------------------------------------- as a user


def test_long_files_from_the_command_line(directory, tmp_path, capsys):
    import soundfile

    folder, _ = directory
    soundfile.write(tmp_path / "long.wav", np.stack([sound(5.3, seed=3)] * 2, axis=1), 16_000)
    soundfile.write(tmp_path / "short.flac", sound(0.3), 16_000)
    arguments = ["transcribe", str(folder / "run"), str(tmp_path / "long.wav"), str(tmp_path / "missing.wav"),
                 str(tmp_path / "short.flac"), "--output", str(tmp_path / "out"), "--temperature", "0", "--beams", "1"]  # fmt: skip
    status = main([*arguments, *(f"--format={kind}" for kind in ("txt", "json", "srt", "vtt"))])
    shown = capsys.readouterr()
    assert status == 1 and "missing.wav does not exist" in shown.err
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {f"{stem}.{kind}" for stem in ("long", "short") for kind in ("txt", "json", "srt", "vtt")}
    written = json.loads((tmp_path / "out" / "long.json").read_text())
    assert all(0 <= part["start"] < part["end"] for part in written["segments"])
    assert "".join(written["text"].split()) == "".join("".join(part["text"] for part in written["segments"]).split())
    assert f"long.wav: language {written['language']}" in shown.err  # what was detected is told


def test_from_python_segments_come_as_they_are_found(directory):
    folder, _ = directory
    run, seen = load_run(folder / "run"), []
    how = Transcribing(beams=1, temperatures=(0.0,), silence=1.0)
    list(transcribe(run, (sound(3.0), 16_000), how, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (3.0, 3.0)
    with pytest.raises(ValueError, match="no language 'xx'; possible: de, en"):
        list(transcribe(run, (sound(1.0), 16_000), Transcribing(language="xx")))


def test_an_output_that_cannot_be_written_is_met_before_anything_is_heard(directory, tmp_path, capsys):
    (tmp_path / "a").write_text("")
    assert main(["transcribe", str(directory[0] / "run"), "x.wav", "--format=txt", f"--output={tmp_path / 'a'}"]) != 0
    shown = capsys.readouterr()
    assert "a cannot be written to: File exists" in shown.err and "x.wav" not in shown.err


def test_languages_go_by_code_name_or_token(directory):
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    assert {name: code for name, code in TO_LANGUAGE_CODE.items() if name != code} == CODES
    made, _ = transcriber_of(load_run(directory[0] / "run"))
    for given in ("de", "DE", "German", "<|de|>"):
        assert made.language(Transcribing(language=given)) == "de"
        made.check(Transcribing(language=given))
    assert made.language(Transcribing()) is None  # detected
    tuned, _ = transcriber_of(load_run(directory[0] / "run"))
    tuned.protocol = replace(tuned.protocol, language="de")
    assert tuned.language(Transcribing()) == "de" and tuned.language(Transcribing(language="en")) == "en"


def test_the_language_that_a_model_was_tuned_for_is_taken(directory, tmp_path):
    shutil.copytree(directory[0] / "theirs", tmp_path / "theirs")
    file = tmp_path / "theirs" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language": "german"}))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    made, _ = transcriber_of(load_run(tmp_path / "run"))
    assert made.protocol.language == "de"


def test_texts_without_spaces_stay_without():
    made = Said([], 0.0, 0.0, 0.0, 1.0, "ja")
    parts = [Segment(0.0, 1.0, "\u4eca\u65e5\u306f", made, []), Segment(1.0, 2.0, "\u3044\u3044", made, [])]
    assert json.loads(as_json(parts))["text"] == "\u4eca\u65e5\u306f\u3044\u3044"
    parts = [Segment(0.0, 1.0, " So it", made, []), Segment(1.0, 2.0, " is.", made, [])]
    assert json.loads(as_json(parts))["text"] == "So it is." and as_srt(parts).splitlines()[2] == "So it"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_directories_are_read(directory, tmp_path, dtype):
    _, theirs = directory
    copy.deepcopy(theirs).to(dtype).save_pretrained(tmp_path / "theirs")
    tokenizer().save(str(tmp_path / "theirs" / "tokenizer.json"))
    import_directory(tmp_path / "theirs", tmp_path / "run")
    found = load_run(tmp_path / "run").model.state_dict()["tokenizers.text.embedding.weight"]
    torch.testing.assert_close(found, theirs.model.decoder.embed_tokens.weight.to(dtype).float(), rtol=0, atol=0)


def test_weights_that_are_not_read_are_told_how_to_be(directory, tmp_path):
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
    vocabulary.popitem()  # a gap: all that follows would move
    (tmp_path / "theirs" / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(RunError, match=r"<\|endoftext\|> is id 256 in added_tokens.json, but 255"):
        import_directory(tmp_path / "theirs", tmp_path / "other")


def test_what_is_refused(directory, tmp_path):
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
