"""`chopmix generate` and `chopmix evaluate` generate pictures: files, rules, guidance, drafts, and a judge."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from chopmix.commands import generate
from chopmix.commands.cli import main
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference import items as items_module
from chopmix.inference import pages
from chopmix.inference import refine as refining
from chopmix.inference.generate import Generating, Generation
from chopmix.inference.items import generate_items
from chopmix.models.generation.refine import Draft, Refining
from chopmix.tasks.masked_diffusion import MaskedDiffusion
from PIL import Image

COMMON = """
data: {dataset: digits, columns: {words: label}}
training: {steps: 4, samples_per_step: 8, learning_rate: 1e-2, input_dropout: {words: 0.2}}
evaluation: {every: 4, generated: 6}
logging: {tensorboard: false}
"""
WORDS = "words: {use: text, encoding: characters}, "
PICTURE = "image: {use: image_ids, size: 8, patch_size: 2}"
JUDGE = f"""
inputs: {{{PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 17, core_tokens: 1, attention: same_sample}}
tasks: {{digit: {{use: classification, target: label, pooling: class_token}}}}
{COMMON.replace(", columns: {words: label}", "").replace(", input_dropout: {words: 0.2}", "")}"""
WRITER = f"""
inputs: {{{WORDS}{PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: ATTENTION}}
tasks: {{picture: {{use: TASK, target: image, sampling: {{temperature: 1}}, metrics: {{accepted: JUDGED}}}}}}
{COMMON}"""
NAMER = f"""
inputs: {{{WORDS}{PICTURE}}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: same_sample}}
tasks: {{name: {{use: masked_diffusion, target: words, refining: {{tokens: 1}}, metrics: [exact_match]}},
         picture: {{use: masked_diffusion, target: image, refining: {{through: [words]}}}}}}
{COMMON}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A judge, a model that writes pictures patch by patch, and one that refines drafts, trained for a few steps."""
    folder = tmp_path_factory.mktemp("generate")
    os.environ["CHOPMIX_CACHE"] = str(folder / "cache")
    judged = WRITER.replace("JUDGED", f"{{use: accepted_by, run: {folder / 'judge'}}}")
    trees = {
        "judge": JUDGE,
        "writer": judged.replace("ATTENTION", "causal").replace("TASK", "language_modeling"),
        "refiner": judged.replace("ATTENTION", "same_sample").replace("TASK", "masked_diffusion"),
        "namer": NAMER,
    }
    for name, tree in trees.items():
        (folder / f"{name}.yaml").write_text(tree)
        train(load_config(folder / f"{name}.yaml", [f"out={folder / name}"]))
    yield folder
    del os.environ["CHOPMIX_CACHE"]


def generated(folder: Path, run: str, *more: str) -> int:
    return main(["generate", str(folder / run), "--input", "words=7", *more])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


@pytest.mark.parametrize("run", ["writer", "refiner"])
def test_pictures_are_written_and_are_equal_for_equal_seeds(runs, tmp_path, run):
    for name in ("a", "b"):
        assert generated(runs, run, "--output", str(tmp_path / f"{name}.png"), "--count", "2", "--seed", "3") == 0
    pictures = [pixels(tmp_path / f"{name}-{n}.png") for n in (1, 2) for name in "ab"]
    assert pictures[0].shape == (8, 8) and np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert generated(runs, run, "--output", str(tmp_path / "g.png"), "--guidance", "3", "--seed", "3") == 0
    assert generated(runs, run, "--output", str(tmp_path / "g.png")) == 2, "the file exists"
    assert generated(runs, run, "--output", str(tmp_path / "g.mid")) == 2, "no picture is a score"


def test_ids_are_forbidden_and_forced(runs, tmp_path):
    black, white = 0, 15
    more = [
        "--forbid",
        ",".join(str(id) for id in range(16) if id not in (black, white)),
        "--force",
        f"0:{white},3:{black}",
    ]
    assert generated(runs, "writer", "--output", str(tmp_path / "x.png"), *more) == 0
    ids = (
        load_run(runs / "writer")
        .choppers["image"]
        .vocabulary.encode(load_run(runs / "writer").choppers["image"].decode(str(tmp_path / "x.png")))
    )
    assert {*ids} <= {black, white} and (ids[0], ids[3]) == (white, black)


@pytest.mark.parametrize(
    "run, more, message",
    [
        ("writer", ["--forbid", "99"], "--forbid"),
        ("writer", ["--force", "0:99"], "--force"),
        ("writer", ["--force", "16:3"], "position 16 is outside the item; positions are 0 to 15"),
        ("writer", ["--force", "0:3,-1:3"], "position -1 is outside the item"),
        ("writer", ["--item", "x.png"], "--item: this run does not refine drafts"),
        ("refiner", ["--item", "x.png"], "--item FILE and --fill POSITIONS must be used together"),
        ("refiner", ["--item", "gone.png", "--fill", "3"], "--item gone.png"),
        (
            "refiner",
            ["--prompt", "seven"],
            "--prompt is for texts, but 'image' is not a text; --item FILE --fill POSITIONS keeps a part",
        ),
        ("writer", ["--force", "x"], "--force: 'x' is not an integer; write --forbid 3,7 and --force 0:3,1:7"),
        ("writer", ["--forbid", "red"], "--forbid: 'red' is not an integer; write --forbid 3,7"),
        ("writer", ["--force", "0"], "--force: '' is not an integer; write --forbid 3,7 and --force 0:3"),
        ("writer", ["--prompt", "seven"], "--prompt is for texts, but 'image' is not a text"),
        ("writer", ["--grammar", "[0-9]+"], "--grammar is for texts"),
        ("writer", ["--steps", "4"], "--steps: this run does not refine drafts"),
        ("writer", ["--drafts", "4"], "--drafts: this run does not refine drafts"),
        ("writer", ["--order", "random"], "--order: this run does not refine drafts"),
        ("refiner", ["--drafts", "4"], "drafts is 4, but `through` names no input to choose the best draft by"),
        ("namer", ["--drafts", "0"], "drafts must be at least 1, not 0"),
        ("writer", ["--animate", "x.gif"], "--animate: this run does not refine drafts"),
        ("writer", ["--guidance", "-1"], "guidance is -1.0; it must be from 0"),
        ("writer", ["--guidance", "nan"], "guidance is nan; it must be from 0"),
        ("refiner", ["--forbid", "3"], "--forbid: this run refines drafts"),
        ("refiner", ["--force", "0:3"], "--force: this run refines drafts"),
        ("refiner", ["--grammar", "[0-9]+"], "--grammar"),
        ("refiner", ["--steps", "0"], "steps must be at least 1, not 0"),
        ("refiner", ["--order", "backwards"], "--order is 'backwards'; possible: confidence, random"),
        ("refiner", ["--animate", "x.mp4"], "--animate x.mp4: an animation must be a .gif file"),
    ],
)
def test_impossible_options_of_generate_are_refused_with_one_message(runs, tmp_path, capsys, run, more, message):
    capsys.readouterr()
    assert generated(runs, run, "--output", str(tmp_path / "x.png"), *more) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "x.png").exists()


def test_a_part_of_a_picture_is_filled_in(runs, tmp_path, capsys):
    """All other patches stay as they are."""
    vocabulary = load_run(runs / "refiner").choppers["image"].vocabulary
    ids = [*range(16)]
    picture = tmp_path / "picture.png"
    picture.write_bytes(vocabulary.content(vocabulary.restore(ids), ".png"))
    more = ["--item", str(picture), "--fill", "0,4:9"]
    assert generated(runs, "refiner", "--output", str(tmp_path / "x.png"), *more, "--count", "8", "--seed", "1") == 0
    chopper = load_run(runs / "refiner").choppers["image"]
    results = [vocabulary.encode(chopper.decode(str(tmp_path / f"x-{n}.png"))) for n in range(1, 9)]
    changed = {place for each in results for place in range(16) if each[place] != ids[place]}
    assert changed and changed <= {0, 4, 5, 6, 7, 8}
    for places, message in (
        ("16", "position 16 is outside the item; positions are 0 to 15"),
        (
            "lower half",
            "--fill lower half: 'lower half' is not an integer. Positions are counted from 0, in a picture row ",
        ),
        ("lower half", "or 8:16 for the second (in a picture: lower) half"),
        ("0:99999999999", "position 99999999998 is outside the item"),
        ("5:5", "the range is empty"),
        ("x", "Write 3,8:12 for the positions 3, 8"),
    ):
        capsys.readouterr()
        more = ["--item", str(picture), "--fill", places, "--output", str(tmp_path / "y.png")]
        assert generated(runs, "refiner", *more) == 2 and message in capsys.readouterr().err


def test_drafts_are_animated(runs, tmp_path):
    more = ["--output", str(tmp_path / "x.png"), "--animate", str(tmp_path / "x.gif"), "--steps", "5"]
    assert generated(runs, "refiner", *more, "--order", "random") == 0
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames >= 5


def test_a_draft_of_a_text_is_a_prompt_with_masks(runs, capsys):
    more = ["--target", "words", "--item", "x.txt", "--fill", "0"]
    assert main(["generate", str(runs / "namer"), *more]) == 2
    message = "--item and --fill are not for texts; write masks into the prompt: --prompt 'a <|mask|>'"
    assert message in capsys.readouterr().err


def test_an_animation_of_a_text_is_not_written_over_a_file(runs, tmp_path, capsys):
    """A text needs no `--output`."""
    file = tmp_path / "x.gif"
    more = ["--target", "words", "--input", f"image={tmp_path / 'picture.png'}"]
    vocabulary = load_run(runs / "namer").choppers["image"].vocabulary
    (tmp_path / "picture.png").write_bytes(vocabulary.content(vocabulary.restore([*range(16)]), ".png"))
    assert main(["generate", str(runs / "namer"), *more, "--animate", str(file)]) == 0
    before = file.read_bytes()
    with Image.open(file) as animation:
        assert animation.n_frames >= 2
    for name, message in (
        (file, "x.gif exists; choose another name"),
        (tmp_path / "x.mp4", "an animation must be a .gif file"),
    ):
        capsys.readouterr()
        assert main(["generate", str(runs / "namer"), *more, "--animate", str(name)]) == 2
        assert message in capsys.readouterr().err and file.read_bytes() == before


@pytest.mark.parametrize(
    "run, more", [("writer", ["--guidance", "20"]), ("refiner", ["--guidance", "20", "--steps", "3"])]
)
@pytest.mark.system
def test_evaluations_generate_with_the_options_of_the_command(runs, tmp_path, run, more):
    figures, sheets = [], []
    for options in ([], more, [*more, "--temperature", "0"]):
        assert main(["evaluate", str(runs / run), "--report", "--json", str(tmp_path / "x.json"), *options]) == 0
        figures.append(json.loads((tmp_path / "x.json").read_text()))
        sheets.append((runs / run / "report" / "val-samples.html").read_text())
    assert {"val/accepted", "val/accepted_real", "val/accepted_decoded"} <= figures[0].keys()
    for name in ("recall", "coverage", "variance"):  # metrics of the pooled vectors of the judge
        assert {f"val/accepted_{name}", f"val/accepted_{name}_real"} <= figures[0].keys()
        assert figures[0][f"val/accepted_{name}_real"] == pytest.approx(figures[1][f"val/accepted_{name}_real"])
    assert figures[0]["val/accepted_compared"] == figures[0]["val/judged"] > 100
    assert figures[1]["guidance"] == 20 and figures[2]["temperature"] == 0 and "guidance" not in figures[0]
    assert figures[0]["val/loss"] == figures[1]["val/loss"] and len({*sheets}) == 3


def test_a_refined_text_is_compared_with_the_text_of_the_sample(runs, tmp_path):
    options = ["--temperature", "0", "--json", str(tmp_path / "x.json"), "--report"]
    assert main(["evaluate", str(runs / "namer"), *options]) == 0
    metrics = json.loads((tmp_path / "x.json").read_text())
    # a text has one token, which is always hidden: exact match is the accuracy of the most probable token
    assert 0 < metrics["val/name/exact_match"] == pytest.approx(metrics["val/name/accuracy"])
    assert metrics["val/name/judged"] > 100
    page = (
        runs / "namer" / "report" / "val-samples.html"
    ).read_text()  # the page shows the other task, although the task of texts is the first
    assert page.count("<tr>") == pages.COUNT == page.count("<figcaption>generated")


@pytest.mark.parametrize(
    "run, more, message",
    [
        ("judge", ["--guidance", "2"], "generates nothing: `guidance` and `temperature`"),
        ("writer", ["--steps", "2"], "does not refine drafts"),
        ("refiner", ["--drafts", "2"], "does not refine drafts with `refining.through`"),
        ("namer", ["--drafts", "0"], "drafts must be at least 1, not 0"),
        ("writer", ["--guidance", "200"], "guidance is 200.0; it must be from 0"),
        ("refiner", ["--temperature", "-1"], "temperature is -1.0; it must be 0"),
    ],
)
def test_impossible_options_of_evaluate_are_refused_with_one_message(runs, capsys, run, more, message):
    capsys.readouterr()
    assert main(["evaluate", str(runs / run), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("task, attention", [("masked_diffusion", "same_sample"), ("language_modeling", "causal")])
def test_metrics_of_texts_are_refused_for_other_items(tmp_path, task, attention):
    tree = WRITER.replace("ATTENTION", attention).replace("TASK", task).replace("{accepted: JUDGED}", "[wer]")
    (tmp_path / "x.yaml").write_text(tree)
    with pytest.raises(ValueError, match="tasks.picture.metrics: wer compare texts, but 'image' is not a text"):
        train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))


@pytest.mark.parametrize("run", ["writer", "refiner"])
def test_options_that_are_not_passed_have_the_values_of_the_task(runs, tmp_path, monkeypatch, run):
    options_of_calls = []
    monkeypatch.setattr(generate, "write_items", lambda *arguments: options_of_calls.append(arguments[4]))
    opened = generate.load
    monkeypatch.setattr(generate, "load", lambda options: opened(options).generating(guidance=3.0, temperature=0.5))
    for more in ([], ["--guidance", "1"], ["--temperature", "2"], ["--top-k", "4"]):
        assert generated(runs, run, "--output", str(tmp_path / "x.png"), *more) == 0
    assert [each["guidance"] for each in options_of_calls] == [3, 1, 3, 3]
    assert [each["sampling"].temperature for each in options_of_calls] == [0.5, 0.5, 2, 0.5] and options_of_calls[3][
        "sampling"
    ].top_k == 4


def test_drafts_of_a_mixture_belong_to_samples_that_have_the_item(tmp_path):
    mixture = "use: mixture, of: {named: digits, other: digits}, share: {named: 1, other: 1}"
    data = f"{{dataset: {{{mixture}, columns: {{named: {{label: words}}}}}}}}"
    (tmp_path / "x.yaml").write_text(NAMER.replace("{dataset: digits, columns: {words: label}}", data))
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
    assert "val/name/exact_match" in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.fixture
def reads(monkeypatch):
    """A list of what drafts read: the task, the words (without start tokens), the inputs, and those for guidance."""
    recorded, draft = [], MaskedDiffusion.draft

    def recording_draft(task, name, model, batch, without=None):
        chunks = batch.main.chunks
        words = chunks["words"].values.flatten().tolist()[1::2] if "words" in chunks else []
        recorded.append((name, words, [*chunks], None if without is None else [*without.main.chunks]))
        return draft(task, name, model, batch, without)

    monkeypatch.setattr(MaskedDiffusion, "draft", recording_draft)
    return recorded


def test_the_item_through_which_a_draft_is_refined_is_generated_first(runs, reads, monkeypatch):
    run = load_run(runs / "namer")
    assert len(run.generate(inputs={}, target="words", seed=0, temperature=0)) == 1, "as long as its task says"
    assert reads.pop() == ("name", [run.tasks["name"].mask], ["words"], None)
    drawn, refined = [], refining.refined

    def recording_refined(task, *more):
        drawn.append(refined(task, *more))
        return drawn[-1]

    monkeypatch.setattr(refining, "refined", recording_refined)
    split = run.open("val")
    places, every = split.first(6), ["words", "image"]
    true = [id for each in places for id in run.tasks["name"].vocabulary.encode(split.item(each.number)[0]["words"])]
    for inputs in ([], ["image"]):  # the true item and the true words are not read
        reads.clear(), drawn.clear()
        generate_items(run, "picture", split, places, Generating(guidance=2, seed=1), inputs=inputs)
        words = [ids[0] for ids in drawn[0]]
        assert reads == [("name", [run.tasks["name"].mask] * 6, ["words"], None), ("picture", words, every, ["image"])]
        assert words != true
    for inputs in (["words"], None):
        reads.clear()
        generate_items(run, "picture", split, places, inputs=inputs)
        assert reads == [("picture", true, every, None)]
    reads.clear()
    run.generate(inputs={"words": "7"}, target="image", seed=0)
    assert reads == [("picture", run.tasks["name"].vocabulary.encode("7"), every, None)]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name, target", [("name", "words"), ("picture", "image")])
def test_true_items_that_are_withheld_or_generated_change_nothing(runs, monkeypatch, name, target, guidance):
    """All true items that must not be read are replaced by others, for every choice of the inputs."""
    run, how = load_run(runs / "namer"), Generating(guidance=guidance, seed=5)
    split = run.open("val")
    true, reader = {each.number: split.item(each.number) for each in split.all()}, type(split.reader)
    scores, scored = [], Draft.scores

    def recording_scores(self, *more):
        scores.append(scored(self, *more))
        return scores[-1]

    monkeypatch.setattr(Draft, "scores", recording_scores)

    def every_score(inputs, replaced):
        def item(self, number, training=False):
            true_item, labels = true[number]
            other = {"words": str(9 - int(true_item["words"])), "image": true_item["image"].flip(-1)}
            return {**true_item, **{each: other[each] for each in replaced}}, labels

        scores.clear()
        with monkeypatch.context() as patch:
            patch.setattr(reader, "item", item)
            assert len(generate_items(run, name, split, split.first(8), how, inputs=inputs)) == 8
        return torch.cat([each.flatten() for each in scores])

    for inputs in (None, [], ["words"], ["image"], ["words", "image"]):
        read_inputs = ({"words", "image"} if inputs is None else {*inputs}) - {target}
        plain = every_score(inputs, ())
        assert torch.equal(every_score(inputs, {"words", "image"} - read_inputs), plain)
        assert not read_inputs or not torch.equal(every_score(inputs, read_inputs), plain), (
            "inputs that are read have an effect"
        )


def test_an_input_that_another_task_predicts_is_withheld_too(tmp_path, reads):
    """The collator keeps predicted inputs for every choice of the other inputs."""
    tree = NAMER.replace(
        "use: masked_diffusion, target: words, refining: {tokens: 1}, metrics: [exact_match]",
        "use: language_modeling, target: words",
    ).replace("refining: {through: [words]}", "guidance: 2")
    tree = tree.replace(WORDS + PICTURE, f"{PICTURE}, {WORDS[:-2]}")  # a language model continues the last input
    tree = tree.replace(", input_dropout: {words: 0.2}", "").replace("attention: same_sample", "attention: causal")
    (tmp_path / "x.yaml").write_text(tree)
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
    run = load_run(tmp_path / "run")
    split, how = run.open("val"), Generating(guidance=2, seed=0)
    reads.clear()
    for inputs in ([], ["words"]):
        generate_items(run, "picture", split, split.first(2), how, inputs=inputs)
    assert [inputs for _, _, *inputs in reads] == [[["image"], ["image"]], [["image", "words"], ["image"]]]


@pytest.mark.parametrize("inputs", [None, [], ["words"], ["image"]])
def test_the_draft_from_which_the_model_predicts_the_words_best_is_kept(runs, monkeypatch, inputs):
    run = load_run(runs / "namer")
    split, drafts, first = run.open("val"), [], {}
    refine, generated_first = Draft.refine, refining.generated_first

    def recording_refine(self, *more):
        last = []
        for last in refine(self, *more):
            yield last
        if self.input == "image":
            drafts.append(last)

    def recording_generated_first(*more):
        first["words"] = generated_first(*more)
        return first["words"]

    monkeypatch.setattr(Draft, "refine", recording_refine)
    monkeypatch.setattr(items_module, "generated_first", recording_generated_first)
    frames = []
    how = Generating(refining=Refining(drafts=5, through=("words",)), seed=0, show=frames.append)
    items = generate_items(run, "picture", split, split.first(6), how, inputs=inputs)

    def nats(number: int, row: int, draft: list[int]) -> float:
        """Returns the loss of the words, predicted from this draft alone and from left to right."""
        new = {"image": draft, "words": first["words"](number)}
        batch = split.read([SampleIndex(0, 0, number)], inputs=["image", "words"], replaced=new)
        return items_module.chain_of(run.model, "name", run.tasks["name"], batch)[0]

    chosen = []
    for row, number in enumerate(items):
        costs = [nats(number, row, draft[row]) for draft in drafts]
        chosen.append(min(range(5), key=costs.__getitem__))
        assert items[number] == drafts[chosen[-1]][row] and min(costs) < max(costs)
    assert len(drafts) == 5 and len(set(chosen)) > 1
    assert frames[-1] == list(items.values()), "the shown steps are those of the draft that is kept"


@pytest.mark.system
def test_the_number_of_drafts_is_an_option(runs, tmp_path):
    """With more drafts the words are predicted better from the kept one, and the words are not changed."""
    nats = {}
    for count in (1, 8):
        options = ["--inputs", "words", "--drafts", str(count), "--json", str(tmp_path / "x.json")]
        assert main(["evaluate", str(runs / "namer"), *options]) == 0
        assert json.loads((tmp_path / "x.json").read_text())["drafts"] == count
        run = load_run(runs / "namer").generating(drafts=count)
        split, how = run.open("val"), Generating(seed=1)
        items = generate_items(run, "picture", split, split.first(8), how, inputs=["words"])
        first = {"words": lambda number, split=split: split.item(number)[0]["words"]}
        picture = run.tasks["picture"]
        generation = Generation.of(run, split, split.first(8), how)
        cost_of = refining.cost_of_reading(generation, picture, ["name"], list(items), first)
        nats[count] = cost_of(list(items.values()))
    assert all(best <= one for best, one in zip(nats[8], nats[1])) and sum(nats[8]) < sum(nats[1])


def test_tasks_are_generated_before_those_that_are_refined_through_them():
    def task(target, *through):
        return MaskedDiffusion(target=target, refining=Refining(through=through))

    chain = {"a": task("word"), "other": task("word", "image"), "b": task("sound", "word"), "c": task("image", "sound"),
             "last": task("score", "image")}  # fmt: skip
    for name, order in {"a": [], "b": ["a"], "c": ["a", "b"], "last": ["a", "b", "c"]}.items():
        assert refining.passed_through(chain, name, chain[name].refining) == order


@pytest.mark.parametrize("old, new, message", [
    ("through: [words]", "through: [image]", "picture.refining.through: no preceding task refines 'image'; possi"),
    ("through: [words]", "through: [x]", "picture.refining.through: no preceding task refines 'x'; possi"),
    ("{tokens: 1}", "{steps: 2}", "name.refining.tokens: must be set, since 'picture' is refined through 'words'"),
])  # fmt: skip
def test_a_draft_is_refined_only_through_earlier_tasks_with_a_fixed_length(tmp_path, old, new, message):
    (tmp_path / "x.yaml").write_text(NAMER.replace(old, new))
    with pytest.raises(ValueError, match=f"tasks.{message}"):
        train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
