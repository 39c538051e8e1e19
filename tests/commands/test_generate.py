"""`chopmix generate` and `chopmix evaluate` of pictures: files, rules, guidance, drafts, and a judge."""

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
from chopmix.inference import items as making
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
def test_pictures_are_written_and_a_seed_gives_the_same(runs, tmp_path, run):
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
    "run, more, told",
    [
        ("writer", ["--forbid", "99"], "--forbid"),
        ("writer", ["--force", "0:99"], "--force"),
        ("writer", ["--force", "16:3"], "position 16 is outside the item; positions are 0 to 15"),
        ("writer", ["--force", "0:3,-1:3"], "position -1 is outside the item"),
        ("writer", ["--given", "x.png"], "--given: this run does not refine drafts"),
        ("refiner", ["--given", "x.png"], "--given FILE and --fill POSITIONS must be used together"),
        ("refiner", ["--given", "gone.png", "--fill", "3"], "--given gone.png"),
        (
            "refiner",
            ["--prompt", "seven"],
            "--prompt is for texts, but 'image' is not a text; --given FILE --fill POSITIONS keeps a part",
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
def test_what_cannot_be_asked_for_is_told_in_a_line(runs, tmp_path, capsys, run, more, told):
    capsys.readouterr()
    assert generated(runs, run, "--output", str(tmp_path / "x.png"), *more) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error and not (tmp_path / "x.png").exists()


def test_a_part_of_a_picture_is_filled_in(runs, tmp_path, capsys):
    """All other patches stay as they are."""
    vocabulary = load_run(runs / "refiner").choppers["image"].vocabulary
    ids = [*range(16)]
    given = tmp_path / "given.png"
    given.write_bytes(vocabulary.content(vocabulary.restore(ids), ".png"))
    more = ["--given", str(given), "--fill", "0,4:9"]
    assert generated(runs, "refiner", "--output", str(tmp_path / "x.png"), *more, "--count", "8", "--seed", "1") == 0
    chopper = load_run(runs / "refiner").choppers["image"]
    made = [vocabulary.encode(chopper.decode(str(tmp_path / f"x-{n}.png"))) for n in range(1, 9)]
    changed = {place for each in made for place in range(16) if each[place] != ids[place]}
    assert changed and changed <= {0, 4, 5, 6, 7, 8}
    for places, told in (
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
        more = ["--given", str(given), "--fill", places, "--output", str(tmp_path / "y.png")]
        assert generated(runs, "refiner", *more) == 2 and told in capsys.readouterr().err


def test_drafts_are_animated(runs, tmp_path):
    more = ["--output", str(tmp_path / "x.png"), "--animate", str(tmp_path / "x.gif"), "--steps", "5"]
    assert generated(runs, "refiner", *more, "--order", "random") == 0
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames >= 5


def test_a_text_is_given_with_masks_in_it(runs, capsys):
    more = ["--target", "words", "--given", "x.txt", "--fill", "0"]
    assert main(["generate", str(runs / "namer"), *more]) == 2
    told = "--given and --fill are not for texts; write masks into the prompt: --prompt 'a <|mask|>'"
    assert told in capsys.readouterr().err


def test_an_animation_of_a_text_is_not_written_over_a_file(runs, tmp_path, capsys):
    """A text needs no `--output`."""
    film = tmp_path / "x.gif"
    more = ["--target", "words", "--input", f"image={tmp_path / 'given.png'}"]
    vocabulary = load_run(runs / "namer").choppers["image"].vocabulary
    (tmp_path / "given.png").write_bytes(vocabulary.content(vocabulary.restore([*range(16)]), ".png"))
    assert main(["generate", str(runs / "namer"), *more, "--animate", str(film)]) == 0
    before = film.read_bytes()
    with Image.open(film) as animation:
        assert animation.n_frames >= 2
    for name, told in (
        (film, "x.gif exists; choose another name"),
        (tmp_path / "x.mp4", "an animation must be a .gif file"),
    ):
        capsys.readouterr()
        assert main(["generate", str(runs / "namer"), *more, "--animate", str(name)]) == 2
        assert told in capsys.readouterr().err and film.read_bytes() == before


@pytest.mark.parametrize(
    "run, more", [("writer", ["--guidance", "20"]), ("refiner", ["--guidance", "20", "--steps", "3"])]
)
@pytest.mark.system
def test_evaluations_generate_as_they_are_asked_to(runs, tmp_path, run, more):
    figures, sheets = [], []
    for asked in ([], more, [*more, "--temperature", "0"]):
        assert main(["evaluate", str(runs / run), "--report", "--json", str(tmp_path / "x.json"), *asked]) == 0
        figures.append(json.loads((tmp_path / "x.json").read_text()))
        sheets.append((runs / run / "report" / "val-samples.html").read_text())
    assert {"val/accepted", "val/accepted_real", "val/accepted_decoded"} <= figures[0].keys()
    for name in ("recall", "coverage", "variance"):  # of the vectors that the judge pools
        assert {f"val/accepted_{name}", f"val/accepted_{name}_real"} <= figures[0].keys()
        assert figures[0][f"val/accepted_{name}_real"] == pytest.approx(figures[1][f"val/accepted_{name}_real"])
    assert figures[0]["val/accepted_compared"] == figures[0]["val/judged"] > 100
    assert figures[1]["guidance"] == 20 and figures[2]["temperature"] == 0 and "guidance" not in figures[0]
    assert figures[0]["val/loss"] == figures[1]["val/loss"] and len({*sheets}) == 3


def test_a_refined_text_is_compared_with_that_of_the_sample(runs, tmp_path):
    asked = ["--temperature", "0", "--json", str(tmp_path / "x.json"), "--report"]
    assert main(["evaluate", str(runs / "namer"), *asked]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    # of a text of one token the likeliest one is right as often as the token, which is always hidden
    assert 0 < found["val/name/exact_match"] == pytest.approx(found["val/name/accuracy"])
    assert found["val/name/judged"] > 100
    page = (runs / "namer" / "report" / "val-samples.html").read_text()  # of the other task, though texts come first
    assert page.count("<tr>") == pages.COUNT == page.count("<figcaption>generated")


@pytest.mark.parametrize(
    "run, more, told",
    [
        ("judge", ["--guidance", "2"], "generates nothing: `guidance` and `temperature`"),
        ("writer", ["--steps", "2"], "does not refine drafts"),
        ("refiner", ["--drafts", "2"], "does not refine drafts with `refining.through`"),
        ("namer", ["--drafts", "0"], "drafts must be at least 1, not 0"),
        ("writer", ["--guidance", "200"], "guidance is 200.0; it must be from 0"),
        ("refiner", ["--temperature", "-1"], "temperature is -1.0; it must be 0"),
    ],
)
def test_an_evaluation_that_cannot_be_is_told_in_a_line(runs, capsys, run, more, told):
    capsys.readouterr()
    assert main(["evaluate", str(runs / run), *more]) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


@pytest.mark.parametrize("task, attention", [("masked_diffusion", "same_sample"), ("language_modeling", "causal")])
def test_metrics_of_texts_are_refused_where_no_text_is_predicted(tmp_path, task, attention):
    tree = WRITER.replace("ATTENTION", attention).replace("TASK", task).replace("{accepted: JUDGED}", "[wer]")
    (tmp_path / "x.yaml").write_text(tree)
    with pytest.raises(ValueError, match="tasks.picture.metrics: wer compare texts, but 'image' is not a text"):
        train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))


@pytest.mark.parametrize("run", ["writer", "refiner"])
def test_items_are_generated_as_their_task_says_where_nothing_else_is_asked_for(runs, tmp_path, monkeypatch, run):
    asked = []
    monkeypatch.setattr(generate, "write_items", lambda *given: asked.append(given[4]))
    opened = generate.load
    monkeypatch.setattr(generate, "load", lambda options: opened(options).generating(guidance=3.0, temperature=0.5))
    for more in ([], ["--guidance", "1"], ["--temperature", "2"], ["--top-k", "4"]):
        assert generated(runs, run, "--output", str(tmp_path / "x.png"), *more) == 0
    assert [each["guidance"] for each in asked] == [3, 1, 3, 3]
    assert [each["sampling"].temperature for each in asked] == [0.5, 0.5, 2, 0.5] and asked[3]["sampling"].top_k == 4


def test_drafts_of_a_mixture_are_of_samples_that_have_the_item(tmp_path):
    mixture = "use: mixture, of: {named: digits, other: digits}, share: {named: 1, other: 1}"
    data = f"{{dataset: {{{mixture}, columns: {{named: {{label: words}}}}}}}}"
    (tmp_path / "x.yaml").write_text(NAMER.replace("{dataset: digits, columns: {words: label}}", data))
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
    assert "val/name/exact_match" in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.fixture
def read(monkeypatch):
    """What each draft reads: the task, the words (without start tokens), the inputs, and those for guidance."""
    found, draft_of = [], refining.draft_of

    def spied(model, name, task, batch, without=None):
        chunks = batch.main.chunks
        words = chunks["words"].values.flatten().tolist()[1::2] if "words" in chunks else []
        found.append((name, words, [*chunks], None if without is None else [*without.main.chunks]))
        return draft_of(model, name, task, batch, without)

    monkeypatch.setattr(refining, "draft_of", spied)
    return found


def test_what_a_draft_is_refined_through_is_generated_first(runs, read, monkeypatch):
    run = load_run(runs / "namer")
    assert len(run.generate(inputs={}, target="words", seed=0, temperature=0)) == 1, "as long as its task says"
    assert read.pop() == ("name", [run.tasks["name"].mask], ["words"], None)
    drawn, refined = [], refining.refined

    def kept(task, *more):
        drawn.append(refined(task, *more))
        return drawn[-1]

    monkeypatch.setattr(refining, "refined", kept)
    split = run.open("val")
    places, every = split.first(6), ["words", "image"]
    true = [id for each in places for id in run.tasks["name"].vocabulary.encode(split.item(each.number)[0]["words"])]
    for inputs in ([], ["image"]):  # of what is generated nothing is read: not its own true item, by way of the words
        read.clear(), drawn.clear()
        generate_items(run, "picture", split, places, Generating(guidance=2, seed=1), inputs=inputs)
        words = [ids[0] for ids in drawn[0]]
        assert read == [("name", [run.tasks["name"].mask] * 6, ["words"], None), ("picture", words, every, ["image"])]
        assert words != true
    for inputs in (["words"], None):
        read.clear()
        generate_items(run, "picture", split, places, inputs=inputs)
        assert read == [("picture", true, every, None)]
    read.clear()
    run.generate(inputs={"words": "7"}, target="image", seed=0)
    assert read == [("picture", run.tasks["name"].vocabulary.encode("7"), every, None)]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name, target", [("name", "words"), ("picture", "image")])
def test_what_is_withheld_or_generated_changes_nothing(runs, monkeypatch, name, target, guidance):
    """An attack: other true items in the place of all that must not be read, for every choice of the inputs."""
    run, how = load_run(runs / "namer"), Generating(guidance=guidance, seed=5)
    split = run.open("val")
    true, reader = {each.number: split.item(each.number) for each in split.all()}, type(split.reader)
    scores, scored = [], Draft.scores

    def kept(self, *more):
        scores.append(scored(self, *more))
        return scores[-1]

    monkeypatch.setattr(Draft, "scores", kept)

    def every_score(inputs, replaced):
        def item(self, number, training=False):
            own, labels = true[number]
            other = {"words": str(9 - int(own["words"])), "image": own["image"].flip(-1)}
            return {**own, **{each: other[each] for each in replaced}}, labels

        scores.clear()
        with monkeypatch.context() as patch:
            patch.setattr(reader, "item", item)
            assert len(generate_items(run, name, split, split.first(8), how, inputs=inputs)) == 8
        return torch.cat([each.flatten() for each in scores])

    for inputs in (None, [], ["words"], ["image"], ["words", "image"]):
        read = ({"words", "image"} if inputs is None else {*inputs}) - {target}
        plain = every_score(inputs, ())
        assert torch.equal(every_score(inputs, {"words", "image"} - read), plain)
        assert not read or not torch.equal(every_score(inputs, read), plain), "what is given does count"


def test_an_input_that_another_task_predicts_is_withheld_too(tmp_path, read):
    """The collator keeps predicted inputs, whatever others are asked for."""
    tree = NAMER.replace(
        "use: masked_diffusion, target: words, refining: {tokens: 1}, metrics: [exact_match]",
        "use: language_modeling, target: words",
    ).replace("refining: {through: [words]}", "guidance: 2")
    tree = tree.replace(WORDS + PICTURE, f"{PICTURE}, {WORDS[:-2]}")  # a language model continues what is last
    tree = tree.replace(", input_dropout: {words: 0.2}", "").replace("attention: same_sample", "attention: causal")
    (tmp_path / "x.yaml").write_text(tree)
    train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
    run = load_run(tmp_path / "run")
    split, how = run.open("val"), Generating(guidance=2, seed=0)
    read.clear()
    for inputs in ([], ["words"]):
        generate_items(run, "picture", split, split.first(2), how, inputs=inputs)
    assert [inputs for _, _, *inputs in read] == [[["image"], ["image"]], [["image", "words"], ["image"]]]


@pytest.mark.parametrize("inputs", [None, [], ["words"], ["image"]])
def test_of_several_drafts_the_one_is_kept_from_which_the_model_reads_best(runs, monkeypatch, inputs):
    run = load_run(runs / "namer")
    split, drafts, first = run.open("val"), [], {}
    refine, made_first = Draft.refine, refining.generated_first

    def kept(self, *more):
        last = []
        for last in refine(self, *more):
            yield last
        if self.input == "image":
            drafts.append(last)

    def named(*more):
        first["words"] = made_first(*more)
        return first["words"]

    monkeypatch.setattr(Draft, "refine", kept)
    monkeypatch.setattr(making, "generated_first", named)
    frames = []
    how = Generating(refining=Refining(drafts=5, through=("words",)), seed=0, show=frames.append)
    found = generate_items(run, "picture", split, split.first(6), how, inputs=inputs)

    def nats(number: int, row: int, draft: list[int]) -> float:
        """Of the words, from this draft alone and from left to right."""
        new = {"image": draft, "words": first["words"](number)}
        batch = split.read([SampleIndex(0, 0, number)], inputs=["image", "words"], replaced=new)
        return making.chain_of(run.model, "name", run.tasks["name"], batch)[0]

    chosen = []
    for row, number in enumerate(found):
        costs = [nats(number, row, made[row]) for made in drafts]
        chosen.append(min(range(5), key=costs.__getitem__))
        assert found[number] == drafts[chosen[-1]][row] and min(costs) < max(costs)
    assert len(drafts) == 5 and len(set(chosen)) > 1
    assert frames[-1] == list(found.values()), "the steps that are shown are those of what is kept"


def test_drafts_can_be_asked_for(runs, tmp_path):
    """Of more drafts the kept one is read better, and words of which it is made are not changed."""
    nats = {}
    for count in (1, 8):
        asked = ["--inputs", "words", "--drafts", str(count), "--json", str(tmp_path / "x.json")]
        assert main(["evaluate", str(runs / "namer"), *asked]) == 0
        assert json.loads((tmp_path / "x.json").read_text())["drafts"] == count
        run = load_run(runs / "namer").generating(drafts=count)
        split, how = run.open("val"), Generating(seed=1)
        made = generate_items(run, "picture", split, split.first(8), how, inputs=["words"])
        first = {"words": lambda number, split=split: split.item(number)[0]["words"]}
        picture = run.tasks["picture"]
        generation = Generation.of(run, split, split.first(8), how)
        cost_of = refining.cost_of_reading(generation, picture, ["name"], list(made), first)
        nats[count] = cost_of(list(made.values()))
    assert all(best <= one for best, one in zip(nats[8], nats[1])) and sum(nats[8]) < sum(nats[1])


def test_words_go_before_all_that_is_refined_through_them():
    def task(target, *through):
        return MaskedDiffusion(target=target, refining=Refining(through=through))

    chain = {"a": task("word"), "other": task("word", "image"), "b": task("sound", "word"), "c": task("image", "sound"),
             "last": task("score", "image")}  # fmt: skip
    for name, order in {"a": [], "b": ["a"], "c": ["a", "b"], "last": ["a", "b", "c"]}.items():
        assert refining.passed_through(chain, name, chain[name].refining) == order


@pytest.mark.parametrize("old, new, told", [
    ("through: [words]", "through: [image]", "picture.refining.through: no preceding task refines 'image'; possi"),
    ("through: [words]", "through: [x]", "picture.refining.through: no preceding task refines 'x'; possi"),
    ("{tokens: 1}", "{steps: 2}", "name.refining.tokens: must be set, since 'picture' is refined through 'words'"),
])  # fmt: skip
def test_a_draft_is_refined_through_earlier_tasks_of_known_length_alone(tmp_path, old, new, told):
    (tmp_path / "x.yaml").write_text(NAMER.replace(old, new))
    with pytest.raises(ValueError, match=f"tasks.{told}"):
        train(load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"]))
