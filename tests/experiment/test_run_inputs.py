"""Inputs of `predict` and `generate` have the same rules in Python and on the command line; wrong ones are refused."""

import json

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import write_model_run
from chopmix.files.errors import RunError
from untrained import Everything, untrained

TEXT = {"use": "text", "encoding": "characters"}
PICTURE = {"use": "image_ids", "size": 8, "patch_size": 4, "levels": 2, "channels": 1}
CAUSAL = {"attention": "causal & same_sample"}
LM, DIFFUSION = {"use": "language_modeling"}, {"use": "masked_diffusion"}
RUNS = {
    "two": ({"text": TEXT, "other": TEXT}, {name: {**LM, "target": name} for name in ("text", "other")}, CAUSAL),
    "sees": (
        {"text": TEXT, "image": PICTURE, "other": TEXT},
        {"kind": {"use": "classification", "target": "label"}, "says": {**LM, "target": "other"}},
        CAUSAL,
    ),
    "fills": (
        {"text": TEXT, "other": TEXT},
        {name: {**DIFFUSION, "target": name, "refining": {"tokens": 4}} for name in ("text", "other")},
        {},
    ),
    "names": ({"text": TEXT}, {"kind": {"use": "classification", "target": "label"}}, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a subfolder for each of `RUNS`, with random weights."""
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name, tree in RUNS.items():
            run = untrained(*tree)
            write_model_run(folder / name, run.config, run.choppers, run.tasks, run.model, {})
    return folder


def open_run(folder, name):
    return load_run(folder / name, trust=["untrained"])


def run_command(folder, command, name, *more):
    return main([command, str(folder / name), "--trust", "untrained", *more])


ROW = Everything().open("val")[0]


# --------------------------------------------------------------------------------------------------------- predictions


def test_one_sample_is_predicted_like_a_list_of_one_sample(folder):
    run, sample = open_run(folder, "sees"), {"text": "chop mix"}
    answer = run.predict(sample, max_tokens=3)
    assert answer.keys() == {"kind", "says", "without"} and [answer] == run.predict([sample], max_tokens=3)
    assert run.predict([]) == []
    for wrong in (["a.png"], "a.png"):
        with pytest.raises(RunError, match="a sample must map inputs to values|samples must be a mapping or a list"):
            run.predict(wrong)


def test_missing_inputs_are_reported(folder, capsys):
    run, messages = open_run(folder, "sees"), []
    run.predict([{"text": "chop"}, {"text": "mix", "image": ROW["image"]}, {}], say=messages.append, max_tokens=2)
    assert messages == [
        f"1 of 2 samples: {what} (--input NAME=VALUE)"
        for what in (
            "'label' is predicted without image, other",
            "'label' is predicted without other",
            "'other' is generated without image",
        )
    ]
    assert run_command(folder, "predict", "sees", "--input", "text=chop") == 0
    assert "'label' is predicted without image, other (--input NAME=VALUE)\n" in capsys.readouterr().err
    messages.clear()
    open_run(folder, "fills").predict({"text": "chop<|mask|>", "other": "m<|mask|>x"}, say=messages.append)
    open_run(folder, "two").predict({"text": "chop"}, say=messages.append, max_tokens=2)
    assert messages == [], "the text is read and `other` is generated; no input comes before the text"


def test_a_sample_without_any_input_has_an_error_with_the_names_of_the_inputs(folder):
    run = open_run(folder, "sees")
    good, *bad = run.predict([{"text": "chop"}, {}, {"text": None}], max_tokens=2)
    assert "kind" in good and bad == [{"error": "it has none of the inputs text, image, other"}] * 2
    assert open_run(folder, "names").predict({}) == {"error": "it has none of the inputs text"}


def test_a_model_that_continues_texts_refuses_to_predict(tiny_run, capsys):
    message = f"{tiny_run} continues texts: it generates text and has no other input to predict from. "
    message += "Write `chopmix generate "
    for samples in ([{}], {}, []):
        with pytest.raises(RunError, match=f"^{message}{tiny_run} --prompt TEXT`$"):
            load_run(tiny_run).predict(samples)
    with pytest.raises(RunError, match=f"^{message}{tiny_run} --prompt TEXT`$"):
        load_run(tiny_run).predict({"text": "hello"})  # the true value of its task
    assert main(["predict", str(tiny_run), "--input", "text=hello"]) == 2
    assert "generates 'text', so the task cannot read it" in capsys.readouterr().err


def test_unreadable_samples_are_counted(folder, capsys):
    assert run_command(folder, "predict", "sees", "--input", "image=gone.png", "--input", "image=also.png") == 1
    assert "2 of 2 samples have no result because of errors\n" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "python"), [("predict", "predict"), ("generate", "generate")])
def test_an_input_that_the_run_does_not_have_is_refused(folder, capsys, command, python):
    run, message = open_run(folder, "sees"), "has no input 'imgae'; possible: text, image"
    with pytest.raises(RunError, match=message):
        run.predict({"imgae": 1}) if python == "predict" else run.generate(inputs={"imgae": 1})
    assert run_command(folder, command, "sees", "--input", "imgae=1") == 2 and message in capsys.readouterr().err


def test_a_folder_instead_of_a_file_is_refused(folder, capsys):
    assert run_command(folder, "predict", "sees", "--input", f"image={folder}") == 2
    message = f"--input image={folder}: {folder} is a folder. Pass its files: --input 'image={folder}/**/*.*'"
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- generation


def test_of_two_language_models_the_second_reads_the_first(folder, capsys):
    """Python and the command line generate the same text; another input changes the scores."""
    run = open_run(folder, "two")
    alone = run.generate(inputs={"text": "chop chop"}, target="other", max_tokens=6, temperature=0)
    assert alone == run.generate(inputs={"text": "chop chop"}, max_tokens=6, temperature=0)
    capsys.readouterr()
    more = ["--target", "other", "--max-tokens", "6", "--temperature", "0"]
    assert run_command(folder, "generate", "two", "--input", "text=chop chop", *more) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{alone}\n" and "without" not in printed.err
    scores = []
    for text in ("chop chop", "token"):
        split = run.as_split([{"text": text}])
        batch = split.read(split.all(), rows="one_each", replaced={"other": ()})
        with torch.no_grad():
            scores.append(run.model.read(run.model.plan(batch)).main[0, -1])
    assert not torch.equal(*scores)


@pytest.mark.parametrize(
    ("name", "inputs", "target", "message"),
    [
        ("two", {"text": "a"}, "text", "generates 'text', so the task cannot read it; it has no other inputs"),
        ("two", {"other": "a"}, "text", "does not read 'other' to generate text; it has no other inputs"),
        ("two", {"other": "a"}, "other", "generates 'other', so the task cannot read it; possible: text"),
        ("sees", {"other": "a"}, None, "`chopmix generate` takes the beginning of a text as --prompt"),
        ("two", {"text": "a"}, "txet", "does not generate 'txet'; possible: text, other"),
    ],
)  # fmt: skip
def test_an_input_that_is_not_read_for_a_target_is_refused(folder, capsys, name, inputs, target, message):
    with pytest.raises(RunError, match=message):
        open_run(folder, name).generate(inputs=inputs, target=target)
    pairs = [each for item in inputs.items() for each in ("--input", "=".join(item))]
    assert run_command(folder, "generate", name, *pairs, *(["--target", target] if target else [])) == 2
    assert message in capsys.readouterr().err


def test_a_text_is_generated_for_the_chosen_target(folder):
    run = open_run(folder, "two")
    texts = {target: run.generate("c", target=target, max_tokens=8, temperature=0) for target in ("text", "other")}
    assert texts["text"] != texts["other"], "each text has its head"
    assert ["".join(each) for each in zip(*run.stream("c", target="other", max_tokens=8, temperature=0))] == [
        texts["other"]
    ]


def test_a_run_that_generates_nothing_points_to_predict(folder, capsys):
    assert run_command(folder, "generate", "names", "--input", "text=a") == 2
    assert "generates nothing: none of its tasks (kind) is" in (error := capsys.readouterr().err)
    assert "`chopmix predict` prints its predictions" in error


def test_predict_names_what_is_missing_in_a_draft(folder, capsys):
    assert run_command(folder, "predict", "fills", "--input", "text=chop") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == {"error": "'text' contains no '<|mask|>' to fill in"}
    assert line["other"] == {"error": "'other' is missing; `chopmix generate` generates it"}


# ------------------------------------------------------------------------------------------------------ random numbers


@pytest.mark.parametrize("name, target", [("two", "other"), ("fills", "other"), ("sees", "other")])
def test_a_sampled_answer_depends_on_its_sample_and_seed_alone(folder, name, target):
    run, words = open_run(folder, name), ["chop", "mix", "set", "chop", "token"]
    samples, how = [{"text": word} for word in words], {"temperature": 1.0, "max_tokens": 6}
    alone = [run.generate(inputs=sample, target=target, seed=7, **how) for sample in samples]
    together = run.generate(inputs=samples, target=target, seed=7, **how)
    assert [each for n, each in enumerate(together) if n != 3] == [each for n, each in enumerate(alone) if n != 3]
    assert together[3] != together[0] == alone[3]  # equal samples have different random numbers
    assert run.generate(inputs=samples[::-1], target=target, seed=7, **how)[::-1][1:3] == together[1:3]
    seeds = [7, 8, 7, 9, 7]
    assert run.generate(inputs=samples, target=target, seed=seeds, **how) == [
        run.generate(inputs=sample, target=target, seed=seed, **how) for sample, seed in zip(samples, seeds)
    ]
    lengths, temperatures = [1, 4, 2, 6, 3], [0.0, 1.0, 0.5, 1.0, 0.0]
    mixed = run.generate(inputs=samples, target=target, seed=seeds, max_tokens=lengths, temperature=temperatures)
    assert mixed == [
        run.generate(inputs=sample, target=target, seed=seed, max_tokens=length, temperature=temperature)
        for sample, seed, length, temperature in zip(samples, seeds, lengths, temperatures)
    ]


def test_each_good_sample_among_bad_ones_is_predicted_with_its_seed(folder):
    """The samples have several tasks; some lack inputs and some are wrong."""
    run = open_run(folder, "sees")
    picture, seeds = ROW["image"], [5, 6, 7, 8, 5, 9]
    samples = [{"text": "chop"}, {"image": picture}, {"imgae": 1}, {"text": "mix", "image": picture}, {"text": "chop"},
               {"text": "\x01"}]  # fmt: skip
    how = {"max_tokens": 5, "temperature": 1.0}
    answers = run.predict(samples, seed=seeds, **how)
    assert ["error" in answer for answer in answers] == [False, False, True, False, False, True]
    without = [["image", "other"], ["text", "other"], None, ["other"], ["image", "other"], None]
    assert [answer.get("without") for answer in answers] == without
    for number in (0, 1, 3, 4):
        assert answers[number]["says"] == run.predict(samples[number], seed=seeds[number], **how)["says"]
    assert answers[0]["says"] == answers[4]["says"]  # they have the same seed
    lengths = [1, 2, 3, 4, 5, 6]
    limited = run.predict(samples, seed=seeds, temperature=1.0, max_tokens=lengths)
    for number in (0, 1, 3, 4):
        alone = run.predict(samples[number], seed=seeds[number], temperature=1.0, max_tokens=lengths[number])
        assert limited[number]["says"] == alone["says"]
    with pytest.raises(ValueError, match="seed has 2 values, but there are 6 items"):
        run.predict(samples, seed=[1, 2])
    with pytest.raises(ValueError, match="the seed must be an integer .* not 'x'"):
        run.generate(inputs={"text": "chop"}, target="other", seed="x", temperature=1.0)


def test_each_prompt_has_its_random_numbers(folder):
    run, how = open_run(folder, "two"), {"target": "other", "temperature": 1.0, "max_tokens": 6, "seed": 3}
    prompts = ["chop", "mix", "chop", None]
    together = run.generate(prompts, **how)
    assert [together[n] for n in (0, 1, 3)] == [run.generate(prompts[n], **how) for n in (0, 1, 3)]
    assert together[2] != together[0]
    assert "".join(piece for (piece,) in run.stream("mix", **how)) == together[1]
