"""`chopmix generate` writes every kind of item that has ids to every kind of file; evaluations write sheets of them."""

import csv
import json

import mido
import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.generate import Generating
from chopmix.inference.items import generate_items
from chopmix.models.generation.constraints import Forbidden
from chopmix.models.generation.refine import Draft
from chopmix.tokenizers.media.sound import read_sound
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Tunes(SampleDataset):
    """Scores of two voices, and molecules."""

    splits = ("train", "val")
    columns = ("score", "smiles")

    def open(self, split):
        scores = [np.array([[72 + n % 3, 60], [72, 60 - n % 2], [-1, 60]] * 2) for n in range(12)]
        rows = [{"score": score, "smiles": "C" * (1 + n % 4) + "O"} for n, score in enumerate(scores)]
        return Listed([f"{split} {n}" for n in range(12)], rows)


COMMON = """
training: {steps: 3, samples_per_step: 8, learning_rate: 1e-2}
evaluation: {every: 3, generated: 3, sample_tokens: 6}
logging: {tensorboard: TENSORBOARD}
"""
MODEL = "model: {width: 16, depth: 1, heads: 2, context: 40, attention: causal}"
PICTURE = "image: {use: image_ids, size: 8, patch_size: 2}"
TREES = {
    "tunes": f"""
inputs: {{score: {{use: score, voices: 2, lowest: 55, highest: 80, chords: true}}}}
{MODEL}
tasks: {{music: {{use: language_modeling, target: score}}}}
data: {{dataset: {{use: "test_generate_kinds:Tunes"}}}}
{COMMON.replace("TENSORBOARD", "true")}""",
    "molecules": f"""
inputs: {{smiles: {{use: text, encoding: characters}}}}
{MODEL}
tasks: {{lm: {{use: language_modeling, target: smiles}}}}
data: {{dataset: {{use: "test_generate_kinds:Tunes"}}}}
{COMMON}""",
    "jsons": f"""
inputs: {{text: {{use: text, encoding: bpe, vocabulary: 264}}}}
{MODEL}
tasks: {{lm: {{use: language_modeling, target: text}}}}
data: {{dataset: {{use: text, train: RUNS/text.txt, val: RUNS/other.txt}}}}
{COMMON.replace("samples_per_step: 8", "tokens_per_step: 80")}""",
    "speller": f"""
inputs: {{smiles: {{use: text, encoding: characters}}}}
model: {{width: 16, depth: 1, heads: 2, context: 20, attention: same_sample}}
tasks: {{fill: {{use: masked_diffusion, target: smiles, refining: {{tokens: 4}}}}}}
data: {{dataset: {{use: "test_generate_kinds:Tunes"}}}}
{COMMON}""",
    "drafter": f"""
inputs: {{text: {{use: text, encoding: characters}}}}
model: {{width: 16, depth: 1, heads: 2, context: 20, attention: same_sample}}
tasks: {{fill: {{use: masked_diffusion, target: text}}}}
data: {{dataset: {{use: text, train: RUNS/text.txt, val: RUNS/other.txt}}}}
{COMMON.replace("samples_per_step: 8", "tokens_per_step: 80")}""",
    "tones": f"""
inputs: {{sound: {{use: audio, rate: 8000, mels: 8, frames: 4, longest: 0.2, fill: true}}}}
model: {{width: 16, depth: 1, heads: 2, context: 8, attention: same_sample}}
tasks: {{codes: {{use: reconstruction, target: sound, levels: [4, 4], depth: 1, heads: 2}}}}
data: {{dataset: {{use: dtmf, samples: 24}}}}
{COMMON}""",
    "dialler": f"""
inputs: {{sound: {{use: codes, run: RUNS/tones, input: sound}}}}
{MODEL}
tasks: {{dial: {{use: language_modeling, target: sound}}}}
data: {{dataset: {{use: dtmf, samples: 24}}}}
{COMMON.replace("TENSORBOARD", "true")}""",
    "translator": f"""
inputs: {{words: {{use: text, encoding: characters}}, {PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: causal, encoder: {{depth: 1, context: 8}}}}
tasks: {{picture: {{use: sequence_to_sequence, target: image}}}}
data: {{dataset: digits, columns: {{words: label}}}}
{COMMON}""",
    "masker": f"""
inputs: {{{PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 20, attention: same_sample}}
tasks: {{fill: {{use: masked_modeling, target: image}}}}
data: {{dataset: digits}}
{COMMON}""",
    "refiner": f"""
inputs: {{{PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 20, attention: same_sample}}
tasks: {{fill: {{use: masked_diffusion, target: image}}}}
data: {{dataset: digits}}
{COMMON}""",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with one run of each kind, trained for three steps."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "text.txt").write_text("[true, false] [false] [true] " * 60)
    (folder / "other.txt").write_text("[false, true] [true] " * 20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        patched.setattr(MadeDataset, "held_back", 20)
        for name, tree in TREES.items():
            file = folder / f"{name}.yaml"
            file.write_text(tree.replace("RUNS", str(folder)).replace("TENSORBOARD", "false"))
            train(load_config(file, [f"out={folder / name}"]))
        yield folder


def generate(runs, name, *more):
    trust = ["--trust", "test_generate_kinds"] if name in ("tunes", "molecules", "speller") else []
    return main(["generate", str(runs / name), "--seed", "1", *trust, *more])


@pytest.mark.parametrize("ending", [".mid", ".wav", ".csv"])
def test_a_score_is_written(runs, tmp_path, ending):
    """The model generates a chord before the notes of each step."""
    file = tmp_path / f"tune{ending}"
    assert generate(runs, "tunes", "--output", str(file), "--max-tokens", "12") == 0
    if ending == ".csv":
        steps = [[int(pitch) for pitch in row] for row in csv.reader(file.read_text().splitlines())]
        assert 1 <= len(steps) <= 4 and all(len(step) == 2 for step in steps)
        assert all(pitch == -1 or 55 <= pitch <= 80 for step in steps for pitch in step)
    elif ending == ".mid":
        assert mido.MidiFile(file).length >= 0
    else:
        sound, rate = read_sound(file.read_bytes())
        assert len(sound) > 1000 and rate >= 8000


def test_chords_come_before_the_notes_of_every_step(runs):
    run = load_run(runs / "tunes", trust=["test_generate_kinds"])
    known, score = run.choppers["score"].vocabulary, run.choppers["score"].decode([[72, 60], [72, 59], [-1, 60]])
    ids = known.encode(score)
    assert len(ids) == 9 and all((id > known.silence) == (place % 3 == 0) for place, id in enumerate(ids))
    assert run.generate(target="score", max_tokens=12, seed=2).shape[1] == 2


def test_a_score_may_be_longer_than_the_context(runs):
    run = load_run(runs / "tunes", trust=["test_generate_kinds"])
    endless = Forbidden((run.choppers["score"].vocabulary.end,))
    assert run.generate(max_tokens=60, seed=2, constraint=endless).shape == (20, 2) and run.model.context == 40


@pytest.mark.parametrize(("run", "ending"), [("translator", ".gif"), ("translator", ".png"), ("refiner", ".gif")])
def test_a_picture_is_written(runs, tmp_path, run, ending):
    file = tmp_path / f"x{ending}"
    more = ["--input", "words=7"] if run == "translator" else []
    assert generate(runs, run, "--output", str(file), *more) == 0
    with Image.open(file) as picture:
        assert picture.size == (8, 8)


@pytest.mark.parametrize("run", ["translator", "tunes", "dialler"])
def test_beams_find_whole_items(runs, tmp_path, run):
    loaded = load_run(runs / run, trust=["test_generate_kinds"])
    _, target = loaded.text_task()
    inputs, vocabulary = {"words": "7"} if run == "translator" else {}, loaded.choppers[target].vocabulary
    item = loaded.searching(beams=4).generate(inputs=inputs, max_tokens=20)
    ids = vocabulary.encode(item)
    assert ids and (len(ids) == vocabulary.length if vocabulary.length else len(ids) % 3 == 0)
    more = ["--beams", "4", "--max-tokens", "20", *(f"--input={name}={text}" for name, text in inputs.items())]
    assert main(["generate", str(runs / run), "--output", str(tmp_path / f"x{vocabulary.endings[0]}"), *more,
                 "--trust", "test_generate_kinds"]) == 0  # fmt: skip


def test_a_sound_is_written(runs, tmp_path):
    file = tmp_path / "x.wav"
    assert generate(runs, "dialler", "--output", str(file)) == 0
    sound, rate = read_sound(file.read_bytes())
    assert rate == 8000 and len(sound) == 1600 and np.isfinite(sound).all()


def test_molecules_are_written(runs, tmp_path):
    """Several molecules are written to one file, as programs that read SMILES expect them."""
    assert generate(runs, "molecules", "--output", str(tmp_path / "x.smi"), "--count", "3", "--max-tokens", "9") == 0
    lines = (tmp_path / "x.smi").read_text().splitlines()
    assert len(lines) == 3 and {*"".join(lines)} <= {*"CO"} and [*tmp_path.iterdir()] == [tmp_path / "x.smi"]
    assert generate(runs, "molecules", "--output", str(tmp_path / "y.smi"), "--max-tokens", "9") == 0
    assert len((tmp_path / "y.smi").read_text().splitlines()) == 1


def test_a_judge_that_compares_with_a_column_is_refused_for_a_corpus(runs, tmp_path, capsys):
    judge = f"tasks.fill.metrics={{accepted: {{use: accepted_by, run: {runs / 'masker'}}}}}"
    assert main(["train", str(runs / "drafter.yaml"), judge, f"out={tmp_path / 'x'}"]) == 2
    message = "tasks.fill.metrics.accepted: it compares with column 'label', but dataset 'text' contains only texts"
    assert message in capsys.readouterr().err


def test_a_judge_is_refused_for_an_input_without_ids(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("""
inputs: {image: {use: image, size: 8, patch_size: 4, channels: 1}}
model: {width: 8, depth: 1, heads: 1, context: 24, attention: causal & same_sample}
tasks: {picture: {use: language_modeling, target: image, metrics: {ok: {use: accepted_by, run: x, column: label}}}}
data: {columns: {image: image}, dataset: digits}
training: {steps: 1, samples_per_step: 4}
""")
    assert main(["train", str(tmp_path / "x.yaml"), f"out={tmp_path / 'x'}"]) == 2
    message = "tasks.picture.metrics.ok: the input 'image' has no ids, so its items cannot be generated and judged"
    assert message in capsys.readouterr().err


def test_the_error_about_an_untrained_judge_names_the_command_that_trains_it(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "seen").mkdir(parents=True)
    (tmp_path / "configs" / "seen" / "judge.yaml").write_text("")
    judge = "tasks.fill.metrics={accepted: {use: accepted_by, run: runs/seen/judge}}"
    assert main(["train", str(runs / "refiner.yaml"), judge, f"out={tmp_path / 'x'}"]) == 2
    message = (
        "tasks.fill.metrics.accepted: runs/seen/judge is not a run: it has no config.yaml. Train it with `chopmix "
    )
    assert f"{message}train configs/seen/judge.yaml`" in capsys.readouterr().err


def test_an_ending_that_does_not_fit_the_item_is_refused(runs, tmp_path, capsys):
    for run, ending, message in (
        ("tunes", ".png", "x.png: '.png' is not supported; possible: .mid, .wav, .mp3, .csv"),
        ("dialler", ".mid", "x.mid: '.mid' is not supported; possible: .wav, .mp3"),
        ("refiner", ".wav", "x.wav: '.wav' is not supported; possible: .png, .gif"),
    ):
        assert generate(runs, run, "--output", str(tmp_path / f"x{ending}")) == 2
        assert message in capsys.readouterr().err


def test_masked_modeling_works_with_pictures(runs):
    """Masked modeling of patches is trained like that of texts, but patches have no whole words."""
    assert load_run(runs / "masker").evaluate("val")["val/accuracy"] > 0


def test_only_texts_can_hide_words(runs, capsys, tmp_path):
    assert main(["train", str(runs / "masker.yaml"), "tasks.fill.hide=words", f"out={tmp_path / 'x'}"]) == 2
    assert "hide: words needs a text, and 'image' is not a text; use hide: tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "metrics"),
    [
        ("tunes", {"val/nats_per_note"}),
        ("dialler", {"val/bits_per_code"}),
        ("translator", {"val/bits_per_dimension"}),
        ("refiner", {"val/bound_bits_per_dimension", "val/chain", "val/chain_bits_per_dimension"}),
    ],
)
def test_evaluations_have_metrics_in_the_unit_of_the_items(runs, tmp_path, run, metrics):
    file, trust = tmp_path / "x.json", ["--trust", "test_generate_kinds"] if run == "tunes" else []
    assert main(["evaluate", str(runs / run), "--json", str(file), *trust]) == 0
    values = json.loads(file.read_text())
    assert metrics <= values.keys() and all(np.isfinite(values[name]) for name in metrics)


@pytest.mark.parametrize("run", ["tunes", "dialler"])
def test_sounds_are_played_on_sheets_and_in_tensorboard(runs, run):
    pages = [*(runs / run / "sheets").glob("*.html")]
    assert pages and pages[0].read_text().count("<audio controls src='data:audio/") >= 2
    trust = ["--trust", "test_generate_kinds"] if run == "tunes" else []
    assert main(["evaluate", str(runs / run), "--report", *trust]) == 0
    for folder in ("tensorboard", "tensorboard/val"):  # of the evaluations during training, and of the command
        board = EventAccumulator(str(runs / run / folder), size_guidance={"audio": 0})
        board.Reload()
        assert {"generated/1", "true/1"} <= {*board.Tags()["audio"]}


@pytest.mark.parametrize("more", [[], ["--temperature", "0"], ["--beams", "3"]])
def test_a_text_fits_its_json_schema_or_a_message_says_that_it_is_cut(runs, tmp_path, capsys, more):
    """The vocabulary of the model has only the symbols of JSON that occur in its training text."""
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    options = ["--seed", "3", "--grammar", str(tmp_path / "s.json"), *more]
    capsys.readouterr()
    assert main(["generate", str(runs / "jsons"), *options]) == 0
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert 1 <= len(values) <= 2 and all(isinstance(each, bool) for each in values) and "cut" not in captured.err
    assert main(["generate", str(runs / "jsons"), *options, "--max-tokens", "1"]) == 0
    assert "the text ends before it matches the grammar; use a larger --max-tokens N" in capsys.readouterr().err


@pytest.fixture
def drafts(monkeypatch):
    """A list to which the ids of every draft are added before it is refined."""
    recorded, refine = [], Draft.refine
    monkeypatch.setattr(Draft, "refine", lambda self, *more: recorded.append(self.items()) or refine(self, *more))
    return recorded


def test_drafts_of_texts_that_are_samples_begin_like_in_training(runs, drafts, tmp_path):
    """Drafts begin with the start token: in an evaluation, without a prompt, with a prompt, and several at once."""
    run = load_run(runs / "speller", trust=["test_generate_kinds"])
    task, split = run.tasks["fill"], run.open("val")
    start, mask, known = task.vocabulary.start, task.mask, task.vocabulary
    chopped = run.choppers["smiles"].chop("CCCO").values.tolist()
    assert chopped == [start, *known.encode("CCCO")]
    four = [each for each in split.all() if len(split.item(each.number)[0]["smiles"]) == 4]
    items = generate_items(run, "fill", split, four[:1], Generating(seed=[3] * len(split)))
    assert drafts.pop() == [[start, mask, mask, mask, mask]]
    assert run.generate(seed=3) == run.generate(inputs={}, seed=3) == task.restore(next(iter(items.values())))
    assert drafts == [[[start, mask, mask, mask, mask]]] * 2
    drafts.clear()
    assert len(run.generate("CC")) == 4 and drafts.pop() == [[start, *known.encode("CC"), mask, mask]]
    both = run.generate(["C<|mask|>C", "<|mask|>O", None])
    assert [len(each) for each in both] == [3, 2, 4] and both[0][0] == both[0][2] == "C" and both[1][1] == "O"
    assert drafts.pop() == [
        [start, *known.encode("C"), mask, *known.encode("C")], [start, mask, *known.encode("O")], [start, *[mask] * 4]
    ]  # fmt: skip
    assert len(run.generate("CC", max_tokens=30)) == 19, "as many as the context has room for"
    drafts.clear()
    assert generate(runs, "speller", "--count", "2", "--output", str(tmp_path / "x.smi")) == 0
    assert drafts == [[[start, mask, mask, mask, mask]] * 2]


def test_drafts_of_windows_of_a_corpus_have_no_start_token(runs, drafts, tmp_path):
    run = load_run(runs / "drafter")
    mask = run.tasks["fill"].mask
    run.generate(max_tokens=3), run.generate(inputs=[{}, {}], max_tokens=3)
    assert generate(runs, "drafter", "--count", "2", "--max-tokens", "3", "--output", str(tmp_path / "x.txt")) == 0
    run.generate("[t")
    assert drafts == [
        [[mask] * 3],
        [[mask] * 3] * 2,
        [[mask] * 3] * 2,
        [[*run.tasks["fill"].vocabulary.encode("[t"), *[mask] * 18]],
    ]


def test_a_text_is_filled_in_where_it_is_masked(runs, tmp_path, capsys):
    file, more = tmp_path / "x.gif", ["--steps", "2", "--prompt", "[t<|mask|>ue, <|mask|>"]
    capsys.readouterr()
    assert generate(runs, "drafter", *more, "--animate", str(file)) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("[t") and line[3:7] == "ue, " and len(line) == 8
    with Image.open(file) as animation:
        assert animation.n_frames == 3
    assert generate(runs, "drafter", "--prompt", "[tr", "--max-tokens", "4") == 0
    assert len(capsys.readouterr().out.splitlines()[0]) == 7
