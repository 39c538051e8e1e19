"""Fuzz tests of larger systems (decisions, plans, learning in context, drafts, codes, mixtures): configurations,
damaged runs, odd command lines, recorded episodes, data sets of Minari, clocks, files of codes."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium", reason="needs the extra decision")
pytest.importorskip("h5py", reason="needs the extra decision")
pytestmark = pytest.mark.system

import h5py
import numpy as np
import yaml
from chopmix.data.generated import MadeDataset
from chopmix.experiment.settings.config import load_config
from chopmix.projects.in_context import curves as learned
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.video import VideoChopper
from fuzzed import at, changed_bytes, changed_text, changed_tree, fuzzed, odd_numbers, odd_values, paths_of
from hypothesis import strategies as st
from judged import command, in_its_home
from matplotlib.figure import Figure
from PIL import Image
from systems import ARRAYS, METADATA, STEPS, SYSTEMS, USES, episodes_of_minari, trained, write_parts
from test_fuzz_configurations import experiments, has_quick_steps
from test_fuzz_runs import (
    OPTIONS,
    SPECIAL,
    WRITTEN,
    Files,
    few,
    files,
    inputs,
    numbers,
    odd_json,
    odd_run,
    odd_weights,
    texts,
    write,
)
from tiny import dumped

SLOW = 8
"""The default number of inputs of tests in which each input is a complete command."""


@pytest.fixture(scope="module", autouse=True)
def less_work():
    """Validation and the linear maps of `in_context` use few functions, and one of ten figures is drawn."""
    saved, save = itertools.count(), Figure.savefig

    def save_some(figure, file, **options):
        draw = (
            save if next(saved) % 10 == 0 else lambda figure, file, **options: Image.new("1", (1, 1)).save(file, "png")
        )
        draw(figure, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MadeDataset, "held_back", 40)
        patch.setattr(learned, "FITTED", 40)
        patch.setattr(learned, "SCORED", 10)
        patch.setattr(Figure, "savefig", save_some)
        yield


@pytest.fixture(scope="module")
@in_its_home
def parts(whole_judge) -> None:
    """Write the data that the configurations read besides the samples."""
    whole_judge.folder()
    write_parts(whole_judge.home / "data")


@pytest.fixture(scope="module")
@in_its_home
def runs(whole_judge, parts) -> dict[str, Files]:
    """The files of one run of every system."""
    return {name: trained(name, tree, whole_judge.folder()) for name, tree in SYSTEMS.items()}


# ------------------------------------------------------------------------------------------------------ configurations

NEAR = st.sampled_from(("note", "image", ["note"], {"note": 1}, 0.5, 2, -1, [[1]], {"a": 0}, "seconds",
                        "../data/recorded", "../data/coder", "run", [4, 4], [1] * 20))  # fmt: skip
"""Values that are valid for some key of a configuration of a system."""


@st.composite
def near_systems(draw) -> dict:
    """A configuration of a system in which one value is replaced by another of the same or of any type."""
    tree = yaml.safe_load(dumped(SYSTEMS[draw(st.sampled_from(sorted(SYSTEMS)))]))
    *parents, key = draw(st.sampled_from(paths_of(tree)))
    holder = at(tree, parents)
    is_number = isinstance(holder[key], int | float) and draw(st.booleans())
    holder[key] = draw(odd_numbers if is_number else NEAR | odd_values)
    return tree


@fuzzed(tree=changed_tree(list(SYSTEMS.values())).map(dumped) | near_systems().map(dumped))
def test_configurations_of_systems(judge, parts, tree):
    folder = judge.folder()
    (folder / "odd.yaml").write_text(tree, errors="surrogatepass")
    judge.check("configurations", lambda: load_config(folder / "odd.yaml"), tree)


@fuzzed(SLOW, tree=(experiments(SYSTEMS) | near_systems()).filter(has_quick_steps))
def test_dry_runs_of_systems(judge, parts, tree):
    text = dumped(tree)
    (judge.folder() / "odd.yaml").write_text(text, errors="surrogatepass")
    judge.check("dry runs", lambda: command("train", "odd.yaml", "--dry-run"), text)


# ---------------------------------------------------------------------------------------------------------------- runs


@fuzzed(SLOW, data=st.data())
def test_runs_of_systems(judge, runs, data):
    name = data.draw(st.sampled_from(sorted(runs)))
    use, changes, places = data.draw(st.sampled_from(USES[name])), {}, {}
    if data.draw(st.integers(0, 4)):
        changes = data.draw(odd_run(runs[name]))
    else:
        names = [file for file in runs[name] if file.startswith("run/")]
        others = [f"run/{file}" for file in (*WRITTEN, "sheets/val.html", "in_context.csv", "budget.json")]
        places = {data.draw(st.sampled_from([*names, *others])): data.draw(st.sampled_from(sorted(SPECIAL)))}
    folder, outside = judge.folder(), judge.home.parent / "outside"
    write({**runs[name], **changes}, folder)
    for file, what in places.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
        SPECIAL[what](folder / file, outside)
    judge.check("systems", lambda: command(*use), f"{name}, {' '.join(use)}: {changes or places!r}")


FILLS = texts | st.sampled_from(("3:6", "0", "0:16", "5:2", "-1", "3,", "1:2:3", "0:999999999", "9" * 30))
FORCED = texts | st.sampled_from(("0:1", "0:99999", "-1:2", "0:1,0:2", "99999:1", "0:"))
DRAWINGS = st.sampled_from(("x.png", "x.gif", "x.mid", "x.wav", "x.csv", "x.txt", "x", ".png", "a/b.png", "x.PNG",
                            "run/config.yaml", "a" * 260 + ".png", "\ud800.png"))  # fmt: skip
GRAMMARS = texts | st.sampled_from(("(a+)+$", "[a-z]{1,100000}", "(?=x)", "odd.txt", "\\p{L}+",
                                    "(?P<x>a)\\1", "x.lark"))  # fmt: skip
READ = texts | st.sampled_from(("image", "note,image", ",", "image,image"))
WORLDS = texts | st.sampled_from(("CartPole-v1", "CartPole-v9", "chopmix/KeyToDoor-v0", "Pendulum-v1", "a/b:c/d-v0",
                                  ":", "CartPole-v1:"))  # fmt: skip
ADAPTERS = texts | st.sampled_from(("none", "run", "../data/judge", "run,run", ",", "run,none"))
PLANS = texts | st.sampled_from(("beams:2,horizon:2", "beams:0", "horizon:99999", "beams:2,", "expand:-1,beams:1", ":"))
POLICIES = texts | st.sampled_from(("script", "bot", "random", "run", "json:loads", "run/config.yaml"))
DATASETS = st.sampled_from((
    "{use: mixture, of: {a: {use: manifest, train: ../data/val.jsonl, columns: [image, label, note]}}, share: {a: 1}}",
    "{use: episodes, of: {use: folder, path: ../data/recorded}, window: 3}", "{use: in_context, dimension: 2}",
    "{use: rewarded_arithmetic, samples: 8}",
    "{use: rules}", "{use: recall}", "{use: vehicle}", "{use: webdataset, train: x.tar, columns: {image: png}}",
    "{use: hugging_face, path: ../data/val.jsonl}", "{use: parallel_text, train: {a: ../data/train.txt}}",
    "{use: image_folder, train: ../data}", "{use: minari, path: ../data}", "{use: emoji, skin_tones: false}",
    "{use: torchvision_data, dataset: MNIST}", "{use: moses}", "{use: passages}",
))  # fmt: skip
SYSTEM_OPTIONS: dict[str, dict[str, st.SearchStrategy | None]] = {
    "generate": {
        **OPTIONS["generate"], "--fill": FILLS, "--force": FORCED, "--output": DRAWINGS, "--grammar": GRAMMARS,
        "--forbid": texts | st.sampled_from(("1,2", "0," * 5000 + "1", "-1", "99999")),
        "--animate": st.sampled_from(("d.gif", "d.png", "", "run", "a/d.gif")),
    },
    "evaluate": {
        **OPTIONS["evaluate"], "--guidance": numbers, "--temperature": numbers, "--steps": few, "--drafts": few,
        "--inputs": READ, "--adapters": ADAPTERS,
        "--data": DATASETS | changed_text(["{use: episodes, of: {use: folder, path: ../data/door}}"]),
    },
    "play": {**OPTIONS["play"], "--plan": PLANS, "--environment": WORLDS, "--against": texts | st.just("run"),
             "--record": st.sampled_from(("x.gif", "x.png", "a/b.gif", "run"))},
    "record": {**OPTIONS["record"], "--policy": POLICIES},
    "in_context": {**OPTIONS["in_context"]},
    "predict": {**OPTIONS["predict"]},
    "train": {**OPTIONS["train"]},
}  # fmt: skip
LIKELY = {
    "generate": ("refines", "codes", "notes", "score", "encoded", "flow", "rewarded"),
    "play": ("acts", "plans"), "record": ("acts",),
    "in_context": ("in_context",), "predict": ("encoded", "mixture", "acts", "refines", "adapted"),
}  # fmt: skip
NEEDED = {
    "generate": (("--max-tokens", "3"),), "play": (("--episodes", "1"),), "in_context": (("--functions", "4"),),
    "record": (("--episodes", "1"), ("--out", "r")), "predict": (("--input", "image=../data/image-0.png"),),
    "train": (("--dry-run",),),
}  # fmt: skip
VALUES = files | texts | st.sampled_from(("[1, 2]", "[[NaN]]", "../data/score-0.mid", "1e999", "[]", "{}",
                                          '{"values": [1], "seconds": [0]}'))  # fmt: skip
INPUT_VALUES = inputs | st.builds(
    "{}={}".format, st.sampled_from(("score", "observation", "action", "return", "x")), VALUES
)


@st.composite
def command_lines(draw) -> tuple[str, tuple[str, ...]]:
    """The name of a system, and a command line that reads its run."""
    word = draw(st.sampled_from(sorted(SYSTEM_OPTIONS)))
    name = draw(st.sampled_from(LIKELY.get(word, tuple(SYSTEMS))))
    options, words = SYSTEM_OPTIONS[word], []
    for option in draw(st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True)):
        value = INPUT_VALUES if option == "--input" else options[option]
        words += [option] if value is None else [option, draw(value)]
        words += [draw(numbers)] if option == "--noise" else []
    words += [each for needed in NEEDED.get(word, ()) if needed[0] not in words for each in needed]
    return name, (word, draw(WORLDS) if word == "record" else "run", *words)


@fuzzed(SLOW, line=command_lines(), content=changed_text(["chop mix\n", 'start: "chop" | "mix"\n']))
def test_command_lines_over_systems(judge, runs, line, content):
    name, words = line
    folder = judge.folder()
    write({**runs[name], "odd.txt": content.encode(errors="surrogatepass")}, folder)
    os.mkfifo(folder / "pipe")
    judge.check("systems", lambda: command(*words), f"{name}: chopmix {words!r}, odd.txt {content!r}")


@fuzzed(SLOW, name=st.sampled_from(("mixture", "acts", "in_context", "encoded", "score", "refines")),
        text=DATASETS.flatmap(lambda text: changed_text([text])), word=st.sampled_from(("evaluate", "embed")),
)  # fmt: skip
def test_data_of_the_command_line(judge, runs, name, text, word):
    write(runs[name], judge.folder())
    words = (word, "run", "--data", text, *(("--output", "v.npy") if word == "embed" else ()))
    judge.check("data options", lambda: command(*words), f"{name}: {words!r}")


@fuzzed(6, plan=PLANS | changed_text(["beams:2,horizon:1", "horizon:1", "beams:1,expand:2,horizon:1"]))
def test_plans(judge, runs, plan):
    write(runs["plans"], judge.folder())
    judge.check("plans", lambda: command("play", "run", "--episodes", "1", "--plan", plan), repr(plan))


# ------------------------------------------------------------------------------------------------------------ episodes


def reading(source: dict) -> str:
    """A configuration that reads episodes from this source."""
    dataset = {"use": "episodes", "of": source, "window": 4}
    return dumped({**SYSTEMS["acts"], "data": {"order": "seconds", "dataset": dataset}, "evaluation": {}})


@fuzzed(SLOW, data=st.data())
def test_recorded_episodes(judge, parts, data):
    recorded = judge.home / "data" / "recorded"
    contents = {file.name: file.read_bytes() for file in sorted(recorded.iterdir()) if file.is_file()}
    damaged = data.draw(st.sets(st.sampled_from(sorted(contents)), min_size=1))
    odd = {name: odd_json if name.endswith("json") else odd_weights for name in contents}
    changes = {name: data.draw(odd[name](contents[name])) for name in sorted(damaged)}
    folder = judge.folder()
    write({f"recorded/{name}": content for name, content in {**contents, **changes}.items()}, folder)
    (folder / "x.yaml").write_text(reading({"use": "folder", "path": "recorded"}))
    judge.check("episodes", lambda: command("train", "x.yaml", "--dry-run"), repr(changes))


ODD_ARRAYS: list[Any] = [
    np.zeros(0), np.zeros(STEPS), np.zeros((STEPS, 2)), np.full(STEPS, np.nan), np.full(STEPS, np.inf), 5, "text",
    np.zeros(STEPS, "S5"), np.arange(STEPS) - 3, np.zeros(STEPS, complex), np.zeros((STEPS, 0)), np.zeros(STEPS, "V3"),
    np.zeros((STEPS + 1, 4), np.uint8), np.zeros(STEPS, [("a", "f4")]), np.zeros(STEPS, bool),
    np.arange(STEPS) * 10**18, h5py.SoftLink("/episode_0"), h5py.SoftLink("/nowhere"), h5py.Empty("f4"),
    h5py.ExternalLink("other.hdf5", "/x"),
]  # fmt: skip
ARRAY_WRITERS = {
    "a group": lambda group, name: group.create_group(name),
    "texts": lambda group, name: group.create_dataset(name, data=[b"x"] * STEPS, dtype=h5py.string_dtype()),
    "bytes": lambda group, name: group.create_dataset(name, (STEPS + 1,), dtype=h5py.vlen_dtype(np.uint8)),
    "elsewhere": lambda group, name: group.create_dataset(name, (STEPS,), "i4", external=[("/etc/passwd", 0, 24)]),
    "a bomb": lambda group, name: group.create_dataset(name, (2**40,), "f8", chunks=(2**16,)),
    "nothing": lambda group, name: None,
}
PUT = st.sampled_from(sorted(ARRAY_WRITERS)) | st.integers(0, len(ODD_ARRAYS) - 1)


def put(how: str | int) -> Any:
    """A function that writes an odd array."""
    return ARRAY_WRITERS[how] if isinstance(how, str) else lambda group, name: group.__setitem__(name, ODD_ARRAYS[how])


@fuzzed(SLOW, name=st.sampled_from(ARRAYS), how=PUT, metadata=st.none() | changed_tree([METADATA], most=1),
        content=st.none() | changed_bytes([episodes_of_minari()]))  # fmt: skip
def test_data_sets_of_minari(judge, parts, name, how, metadata, content):
    folder = judge.folder() / "m" / "data"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(
        json.dumps(METADATA if metadata is None else metadata), errors="surrogatepass"
    )
    (folder / "main_data.hdf5").write_bytes(content or episodes_of_minari(name, put(how)))
    Path("x.yaml").write_text(reading({"use": "minari", "path": "m"}))
    shown = f"{name}: {how if content is None else content!r}, {metadata!r}"
    judge.check("minari", lambda: command("train", "x.yaml", "--dry-run"), shown)


# -------------------------------------------------------------------------------------------------------------- values

VALUE = st.sampled_from([0, 1, 2, -1, 1.5, 1e7, 1e308, float("nan"), float("inf"), None, "a", True, 10**30, [], {}, "0",
                         b"x", 1e-320])  # fmt: skip
ARRAY = (
    st.recursive(VALUE, lambda inner: st.lists(inner, max_size=5), max_leaves=12)
    | st.builds(np.zeros, st.lists(st.integers(0, 4), max_size=4), st.sampled_from(("f4", "i8", "u1", "?", "c8",
                                                                                  "U2", "O", "M8[D]", "f2")))
    | st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=4)
)  # fmt: skip
CLOCK = ARRAY | st.lists(st.integers(0, 9), max_size=5).map(sorted)
STREAM = (
    ARRAY
    | st.fixed_dictionaries({}, optional={"values": ARRAY, "seconds": CLOCK, "x": VALUE})
    | changed_bytes([b"seconds,a,b\n0,1,2\n1,2,3\n", b"seconds,a\n1,1\n0,2\n", b"a,seconds\nnan,inf\n"])
)
"""Values with a clock, or almost."""
CHOPPERS = (
    SensorChopper(channels=2), SensorChopper(channels={"a": None, "b": "m"}, window=2), CategoryChopper(size=3),
    CategoryChopper(size=3, shape=(2, 2), cut=1, empty=(0,)), VideoChopper(size=8, patch_size=4, longest=2),
)  # fmt: skip


@fuzzed(raw=STREAM, chopper=st.sampled_from(CHOPPERS))
def test_values_and_clocks(judge, raw, chopper):
    judge.folder()

    def read() -> None:
        item = chopper.decode(raw)
        assert chopper.chop(item).count == chopper.count(item)

    judge.check("clocks", read, f"{chopper}.decode({raw!r})")


@pytest.fixture(scope="module")
@in_its_home
def codes(whole_judge, runs) -> Files:
    """The files of codes that training writes into the cache."""
    folder = whole_judge.folder()
    trained("codes", SYSTEMS["codes"], folder)
    paths = sorted((folder / "cache").rglob("*.safetensors"))
    assert paths
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in paths}


@fuzzed(SLOW, data=st.data())
def test_files_of_codes(judge, codes, data):
    """Damaged files of codes are computed again."""
    folder = judge.folder()
    changes = {name: data.draw(odd_weights(content)) for name, content in codes.items()}
    write({**changes, "x.yaml": dumped(SYSTEMS["codes"]).encode()}, folder)
    judge.check("codes", lambda: command("train", "x.yaml", "--dry-run"), repr(changes))


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_the_systems_run(runs, name):
    assert {"run/config.yaml", "run/summary.json"} <= runs[name].keys()
