"""A run, a data set and a folder of episodes from someone else are only data: vulnerabilities of earlier versions stay
closed."""

import base64
import io
import json
import pickle
import shlex
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.datasets.hugging_face import HuggingFace
from chopmix.data.hub_files import split_files, split_in_name
from chopmix.data.tar_files import open_file
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import ConfigError, load_config, load_run_config
from chopmix.files import trust as trusting
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.files.trust import EVERYTHING, NOTHING, Trust, code_in, is_remote, parse_address
from hypothesis import given
from hypothesis import strategies as st

TEXT = """
inputs: {text: {use: text, encoding: bytes}}
model: {width: 16, depth: 1, heads: 2, context: 16}
tasks: {lm: {use: language_modeling, target: text}}
data: {dataset: {use: text, train: train.txt, val: val.txt}}
training: {steps: 2, tokens_per_step: 32}
evaluation: {sample_tokens: 0}
logging: {tensorboard: false}
"""
SAMPLES = {"tokens_per_step": None, "samples_per_step": 2}
PAYLOAD = "from pathlib import Path\nPath(__file__).with_name('executed').write_text('')\n"
RENDERED = "{{ cycler.__init__.__globals__.os.system('touch executed') }}"


class Explodes:
    """Loading a pickle of this class creates the file `executed` in the working directory."""

    def __reduce__(self):
        return exec, ("open('executed', 'w').close()",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny trained run of a text."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        for name in ("train.txt", "val.txt"):
            Path(name).write_text("chop up everything " * 20)
        Path("text.yaml").write_text(TEXT)
        assert main(["train", "text.yaml", "out=run"]) == 0
    return folder / "run"


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A working directory with a copy of the run, `run`, and a module that must not be imported, `payload`; without a
    network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a connection was opened"))
    shutil.copytree(trained, "run")
    for name in ("train.txt", "val.txt"):
        shutil.copy(trained.parent / name, name)
    Path("payload.py").write_text(PAYLOAD)
    yield tmp_path
    assert not Path("executed").exists()


def change(folder, **sections):
    """Changes sections in the configuration of a run."""
    file = Path(folder, "config.yaml")
    tree = yaml.safe_load(file.read_text())
    for name, value in sections.items():
        tree[name] = {**tree[name], **value} if isinstance(tree.get(name), dict) and isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def error_of(capsys, *words):
    """Runs a command that must end with status 2; returns its error."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- code


def test_a_nested_run_gets_the_trust_that_the_user_passed(place, capsys):
    """A text such as `module:name` in the outer configuration does not change the trust."""
    shutil.copytree("run", "run/nested")
    change("run/nested", model={"position": {"use": "payload:Thing"}})
    dataset = {"use": "manifest", "train": "rows.jsonl", "columns": ["image", "text", "payload:x"], "files": []}
    change("run", inputs={"image": {"use": "encoded", "run": "run/nested", "input": "text"}}, data={"dataset": dataset},
           training=SAMPLES)  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps({"image": "a", "text": "b"}) + "\n" for _ in range(20)))
    for word in ("inspect", "evaluate"):
        error = error_of(capsys, word, "run")
        assert "--trust payload" in error or "run/assets/image is missing" in error
    assert load_run_config(Path("run")).trust == NOTHING
    assert load_run_config(Path("run"), Trust.of(["other"])).trust == Trust.of(["other"])


def test_only_parts_in_the_yaml_of_the_user_name_modules(place):
    Path("user.yaml").write_text(TEXT)
    columns = "data.columns={text: 'payload:x'}"
    prompt = "evaluation.prompt='payload:x'"
    assert load_config("user.yaml", [columns, prompt]).trust.modules == set()
    assert load_config("user.yaml").trust.hosts == {"*"}


def test_the_configuration_of_a_run_is_treated_like_the_run(place, capsys):
    change("run", model={"position": {"use": "payload:Thing"}})
    shutil.copy("run/config.yaml", "copied.yaml")  # it has a format
    for words in (["inspect"], ["examples"], ["train", "--dry-run"], ["train"]):
        for file in ("run", "run/config.yaml", "copied.yaml"):
            assert "--trust payload" in error_of(capsys, words[0], file, *words[1:])
    tree = yaml.safe_load(Path("run/config.yaml").read_text())
    del tree["format"]
    Path("run/config.yaml").write_text(yaml.safe_dump(tree))  # next to checkpoints
    assert "has format 1, which an unreleased chopmix" in error_of(capsys, "inspect", "run/config.yaml")


@pytest.mark.parametrize("words", [["inspect"], ["train", "--dry-run"], ["examples", "--output", "out"]])
def test_a_folder_with_a_configuration_is_a_run_even_if_the_rest_is_missing(place, capsys, words):
    """Earlier, a configuration without `format`, `assets` and `checkpoints` was read like one of the user."""
    Path("run2").mkdir()
    tree = yaml.safe_load(TEXT) | {"out": str(place / "elsewhere")}
    tree["model"]["position"] = {"use": "payload:Thing"}
    Path("run2/config.yaml").write_text(yaml.safe_dump(tree))
    for file in ("run2", "run2/config.yaml"):
        error = error_of(capsys, words[0], file, *words[1:])
        assert "has format 1" in error or (
            "--trust payload" in error and "out: a file named config.yaml may belong" in error
        )
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("options", [{"width": 4096, "depth": 100}, {"width": 2**20}])
def test_a_configuration_larger_than_its_weights_is_not_built(place, capsys, options):
    change("run", model=options)
    for words in (["evaluate", "run"], ["generate", "run", "--prompt", "a"], ["predict", "run", "--input", "text=a"]):
        assert "describes a model of at least" in error_of(capsys, *words)


def test_only_the_packages_of_chopmix_belong_to_it():
    """In a checkout `chopmix.runs.x.payload` is a file in the folder `runs`."""
    for name in ("models.transformer", "tokenizers.text", "data.datasets.text", "experiment.run"):
        assert NOTHING.allows(f"chopmix.{name}")
    for name in (
        "chopmix",
        "chopmix.runs.x.payload",
        "chopmix.tests.x",
        "chopmix.configs",
        "chopmixer.models",
        "",
        " ",
    ):
        assert not NOTHING.allows(name)


@given(st.text(), st.text())
def test_an_environment_with_a_colon_names_code(module, name):
    """gymnasium imports any text before the colon, for example a name with a space."""
    assert [*code_in({"x": [f"{module}:{name}"]})] == [f"{module}:{name}"]


def test_a_run_in_the_users_yaml_may_contact_no_host(place):
    Path("user.yaml").write_text(TEXT)
    assert load_config("user.yaml").nested == NOTHING
    assert load_config("user.yaml", trust=Trust.of(hosts=["example.org"])).nested == Trust.of(hosts=["example.org"])
    assert load_config("run", trust=Trust.of(["a"], ["b"])).nested == Trust.of(["a"], ["b"])


@pytest.mark.parametrize("link", ["seed-0", "seed-0/checkpoints", "assets/link", "sheets"])
def test_nothing_is_written_through_a_link_of_a_run(place, capsys, link):
    Path("mine").mkdir()
    Path("run", link).parent.mkdir(exist_ok=True)
    Path("run", link).symlink_to(place / "mine")
    for words in (["train", "run", "--seeds", "0"], ["train", "run", "training.steps=3"]):
        assert "is a link that leads out of the run's folder" in error_of(capsys, *words)
    assert not any(Path("mine").iterdir())


def test_a_printed_flag_cannot_contain_a_command(place, capsys):
    name = "x; touch executed #"
    change("run", evaluation={"play": {"environment": f"{name}:Env-v0"}})
    assert f"--trust {shlex.quote(name)}" in error_of(capsys, "inspect", "run")
    assert shlex.quote(name) in NOTHING.refusal(f"{name}:Env-v0")


def test_training_imports_no_environment_that_episodes_name(place, capsys):
    """`evaluation.play` in a YAML of the user plays in the environment of the data, which the user has not written."""
    pytest.importorskip("gymnasium")
    options = ["--episodes", "20", "--out", "episodes"]
    assert main(["record", "CartPole-v1", *options]) == 0
    about = json.loads(Path("episodes/episodes.json").read_text())
    Path("episodes/episodes.json").write_text(json.dumps({**about, "environment": "payload:CartPole-v1"}))
    Path("user.yaml").write_text("""
inputs: {observation: {use: sensor, channels: 4}, action: {use: category, size: 2, offset: 0.6}}
model: {width: 16, depth: 1, heads: 2, context: 64, attention: causal & same_sample, position: null}
tasks: {act: {use: next_item, target: action, at: observation}}
data: {order: seconds, dataset: {use: episodes, of: {use: folder, path: episodes}, window: 8}}
training: {steps: 2, samples_per_step: 8}
evaluation: {play: {episodes: 1}}
""")
    capsys.readouterr()
    error = error_of(capsys, "train", "user.yaml")
    assert "--environment payload:CartPole-v1" in error and "evaluation.play.environment" in error


# ----------------------------------------------------------------------------------------------------------- addresses


def reference():
    """Returns a shard address that makes fsspec render a template."""
    content = json.dumps({"version": 1, "gen": [{"key": f"{RENDERED}a.tar", "url": "u", "dimensions": {"i": [0]}}]})
    return f"reference://a.tar::data:application/json;base64,{base64.b64encode(content.encode()).decode()}"


@pytest.mark.parametrize("where", ["run", "user.yaml"])
def test_no_address_renders_a_template(place, capsys, where):
    """This is also true if the user wrote the address."""
    dataset = {"use": "webdataset", "train": reference(), "val": reference(), "columns": {"text": "txt"}}
    if where == "run":
        change("run", data={"dataset": dataset}, training=SAMPLES)
    else:
        tree = yaml.safe_load(TEXT) | {"data": {"dataset": dataset}, "training": {"steps": 1, "samples_per_step": 1}}
        Path("user.yaml").write_text(yaml.safe_dump(tree))
    assert "is not supported; possible: a local path, or PROTOCOL://HOST/PATH" in error_of(capsys, "inspect", where)


def test_a_run_connects_to_no_host_that_is_not_named(place, capsys, monkeypatch):
    address = "https://data.example.org/a-{000..001}.tar"
    dataset = {"use": "webdataset", "train": address, "columns": {"text": "txt"}}
    change("run", data={"dataset": dataset}, training=SAMPLES)
    for words in (
        ["evaluate", "run"],
        ["inspect", "run"],
        ["examples", "run"],
        ["train", "run", "training.steps=3"],
        ["train", "run", "--dry-run"],
        ["prepare", "run"],
    ):
        error = error_of(capsys, *words)
        assert "https://data.example.org/a-000.tar is a remote address" in error
        assert "--remote data.example.org (in Python remote=['data.example.org'])" in error
    opened = []
    monkeypatch.setattr("chopmix.data.tar_files.open_file", lambda path: opened.append(path) or open("nowhere"))
    main(["evaluate", "run", "--remote", "data.example.org"])
    assert sorted(opened)[0] == "https://data.example.org/a-000.tar" and len(opened) <= 2
    with pytest.raises(DataError, match="--remote data.example.org"):
        load_run("run", remote=["other.example.org"]).dataset()
    assert load_run("run", remote=["data.example.org"]).dataset().columns == ("text",)
    assert load_run("run").generate("a", max_tokens=1) is not None  # a command without data works as before


@pytest.mark.parametrize(
    ("dataset", "host"),
    [
        ({"use": "hugging_face", "path": "owner/name"}, "huggingface.co"),
        ({"use": "hugging_face", "path": "pandas"}, "huggingface.co"),
        ({"use": "openwebtext"}, "huggingface.co"),
        ({"use": "tiny_shakespeare"}, "raw.githubusercontent.com"),
        ({"use": "cifar10_full", "download": True}, "www.cs.toronto.edu"),
        ({"use": "speech_commands", "download": True}, "download.tensorflow.org"),
        ({"use": "torchvision_data", "dataset": "FashionMNIST", "download": True}, "fashion-mnist"),
        ({"use": "mixture", "of": {"a": "openwebtext"}}, "huggingface.co"),
    ],
)
def test_every_data_set_names_the_host_of_its_downloads(place, monkeypatch, dataset, host):
    monkeypatch.setenv("CHOPMIX_DATA", str(place))
    units = {} if dataset["use"] in ("openwebtext", "tiny_shakespeare") else SAMPLES
    change("run", data={"dataset": dataset}, training=units)
    with pytest.raises(DataError, match=f"--remote {host}"):
        load_run_config(Path("run")).dataset()


def test_ranks_are_not_downloaded_for_a_run(place, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(place / "ranks"))
    encoding = Path("run/assets/text/encoding.json")
    encoding.write_text(json.dumps({**json.loads(encoding.read_text()), "name": "o200k_base"}))
    with pytest.raises(DataError, match=r"encodings/o200k_base\.tiktoken .* --remote openaipublic\.blob\.core"):
        load_run("run")


NAMES = st.text("abcz09-_", min_size=1, max_size=8)


@given(st.sampled_from(sorted(trusting.PROTOCOLS)), st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_an_address_has_the_host_that_is_contacted(protocol, names, path):
    host = ".".join(names)
    address = f"{protocol}://{host}/{path}.tar"
    known = trusting.HUB if protocol == "hf" else host
    assert is_remote(address) and parse_address(address) == (protocol, known)
    Trust.of(hosts=[known]).check_address(address)
    EVERYTHING.check_address(address)
    with pytest.raises(DataError, match="--remote"):
        Trust.of(hosts=[f"x{known}"]).check_address(address)


@given(
    st.text("abc:/@\\?#[]{}% .-", max_size=30),
    st.sampled_from(["", "http://", "reference://", "file://", "zip://a::", "s3://"]),
)
def test_only_plain_addresses_are_opened(text, start):
    """This includes user names, backslashes and chains, which libraries interpret differently."""
    address = start + text
    if not is_remote(address):
        return
    try:
        protocol, host = parse_address(address)
    except DataError as error:
        assert "is not supported" in str(error)
        return
    assert protocol in trusting.PROTOCOLS and address.startswith(f"{protocol}://") and "::" not in address
    assert protocol == "hf" or address[len(protocol) + 3 :].split("/")[0] == host
    assert not set(host) & set("@\\?#[]{}% ")


def test_shards_are_opened_by_the_protocol_alone(monkeypatch):
    """fsspec never receives a complete address of an unknown protocol; `memory` represents a remote store."""
    fsspec = pytest.importorskip("fsspec")
    with pytest.raises(DataError, match="is not supported"):
        open_file("memory://store/a.tar")
    monkeypatch.setattr(trusting, "PROTOCOLS", {*trusting.PROTOCOLS, "memory"})
    fsspec.filesystem("memory").pipe("/store/a.tar", b"chop")
    with open_file("memory://store/a.tar") as file:
        assert file.read() == b"chop"
    fsspec.filesystem("memory").rm("/store/a.tar")
    with pytest.raises(DataError, match="no such file"):
        open_file("memory://store/a.tar")


# ---------------------------------------------------------------------------------------------------- tables of the hub


@pytest.fixture
def table(place, monkeypatch):
    """Returns a function that writes the files of a table and changes the run so that it reads this table."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(place / "hub"))
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    datasets.disable_progress_bars()

    def make(path, **files):
        for name, content in files.items():
            file = Path(name.replace("__", "/"))
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        dataset = {"use": "hugging_face", "path": path}
        change("run", data={"dataset": dataset}, training=SAMPLES)

    return make


def test_nothing_is_unpickled_for_a_table(table, capsys):
    """`pandas` is a builder of the library, which unpickles the files of the working directory."""
    table("pandas", **{"train.pkl": pickle.dumps(Explodes())})
    assert "--remote huggingface.co" in error_of(capsys, "evaluate", "run")
    table("rows", **{"rows__train.pkl": pickle.dumps(Explodes())})
    assert "rows has no data files; possible: .parquet" in error_of(capsys, "evaluate", "run")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_table_follows_no_address(table, capsys):
    """Neither in a README nor in the name of a file."""
    readme = f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(reference())}\n---\n".encode()
    table("rows", **{"rows__README.md": readme, "rows__train.csv": b"text\nchop\n"})
    assert "match no data file of the folder" in error_of(capsys, "evaluate", "run")
    refs = json.dumps({"version": 1, "gen": [{"key": RENDERED, "url": "u", "dimensions": {}}]}).encode()
    table("reference::refs.json", **{"reference::refs.json": refs, "refs.json": refs})
    assert "the path of a data file cannot contain '::'; rename it" in error_of(capsys, "evaluate", "run")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_file_of_a_table_is_opened_by_the_library(table, depth):
    """Not in lists and mappings either: their paths can be addresses that render templates or open connections."""
    datasets = pytest.importorskip("datasets")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind, value = datasets.Image(), {"path": "reference::http://127.0.0.1:1/x.png", "bytes": None}
    stored = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    for _ in range(depth):
        kind, value, stored = datasets.List({"a": kind}), [{"a": value}], arrow.list_(arrow.struct({"a": stored}))
    features = datasets.Features({"text": datasets.Value("string"), "picture": kind}).to_dict()
    rows = arrow.table({"text": ["chop"] * 30, "picture": arrow.array([value] * 30, type=stored)})
    content = io.BytesIO()
    parquet.write_table(
        rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), content
    )
    table("rows", **{"rows__train.parquet": content.getvalue()})
    assert HuggingFace(path="rows").opened("train")[0]["picture"] == (value if depth else value["path"])


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_reading_a_local_table_opens_no_connection(table, capsys):
    """The library reports each load to its developers unless this is switched off."""
    rows = b"text\n" + b"chop\n" * 30
    table("rows", **{"rows__train.csv": rows})
    assert main(["evaluate", "run"]) == 0


def write_files(folder, *names, readme=""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text\nchop\n")
    if readme:
        (folder / "README.md").write_text(f"---\n{readme}\n---\nA data set.")


def test_data_files_are_split_by_their_names(tmp_path):
    write_files(tmp_path, "data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv",
                "data/held-00000-of-00001.csv",
                "dev.csv", "a/test/x.csv", "notes.txt", ".hidden.csv")  # fmt: skip
    reader, splits = split_files(tmp_path)
    assert reader == "csv" and {name: len(files) for name, files in splits.items()} == {
        "train": 2, "held": 1, "validation": 1, "test": 1,
    }  # fmt: skip
    assert all(Path(file).is_absolute() for files in splits.values() for file in files)
    assert [split_in_name(name) for name in ("latest.csv", "my_test.csv", "train/eval.csv", "rows.csv")] == [
        "train", "test", "train", "train",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"has no subset 'c'; possible: a, data"):
        split_files(tmp_path, "c")
    assert split_files(tmp_path, "a")[1].keys() == {"test"}


def test_a_readme_names_subsets(tmp_path):
    readme = """configs:
- config_name: small
  data_files: [{split: train, path: small/*.csv}, {split: test, path: [t.csv]}]
- config_name: large
  default: true
  data_files: "./large/*.csv"
- config_name: outside
  data_files: ["../*.csv", /etc/passwd]"""
    folder = tmp_path / "set"
    write_files(folder, "small/a.csv", "large/b.csv", "large/c.csv", "t.csv", readme=readme)
    write_files(tmp_path, "secret.csv")
    assert {name: len(files) for name, files in split_files(folder)[1].items()} == {"train": 2}
    assert {name: len(files) for name, files in split_files(folder, "small")[1].items()} == {"train": 1, "test": 1}
    with pytest.raises(DataError, match="match no data file of the folder"):
        split_files(folder, "outside")
    with pytest.raises(DataError, match="has no subset 'x'; possible: small, large, outside"):
        split_files(folder, "x")
    (folder / "README.md").write_text(f"---\n{readme.replace('default: true', 'other: 1')}\n---\n")
    with pytest.raises(DataError, match="there are several subsets: name one with `subset`: small, large, outside"):
        split_files(folder)
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")  # damaged
    assert split_files(folder)[1].keys() == {"train"}


# -------------------------------------------------------------------------------------------------------------- outputs


def test_pages_are_written_into_the_folder_that_was_passed(place, capsys):
    Path("victim.html").write_text("mine")
    change("run", out="victim")
    assert main(["inspect", "run"]) == 0
    assert Path("victim.html").read_text() == "mine" and Path("run/inspect.html").is_file()
    assert main(["inspect", "run", "--output", "page.html"]) == 0 and Path("page.html").is_file()
    Path("user.yaml").write_text(TEXT)
    assert main(["inspect", "user.yaml", "out=victim"]) == 0
    assert Path("victim.html").read_text() == "mine" and Path("user.html").is_file()


def test_a_page_that_cannot_be_written_names_the_option(place, capsys):
    Path("run/inspect.html").mkdir()
    assert main(["inspect", "run"]) == 1
    error = capsys.readouterr().err
    assert "run/inspect.html cannot be written" in error and "choose another location with --output FILE" in error


def test_examples_of_a_moved_run_name_its_new_folder(place, capsys):
    rows = "".join(json.dumps({"text": f"chop {n}"}) + "\n" for n in range(20))
    Path("rows.jsonl").write_text(rows)
    dataset = {"use": "manifest", "train": "rows.jsonl", "columns": ["text"], "files": []}
    change(
        "run",
        data={"dataset": dataset},
        training=SAMPLES,
        out="x; touch executed #",
    )
    moved = Path("a run; moved")
    shutil.move("run", moved)
    assert main(["examples", str(moved), "--split", "val", "--number", "1"]) == 0
    assert shlex.split(capsys.readouterr().out)[:3] == ["chopmix", "generate", str(moved)]


def test_training_continues_in_the_folder_that_was_passed(place, capsys):
    """This is true for any `out` in its configuration; a link out of the folder is not followed."""
    Path("elsewhere").mkdir()
    change("run", out="elsewhere/new")
    assert main(["train", "run", "training.steps=3"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["step"] == 3 and not list(Path("elsewhere").iterdir())
    assert main(["train", "run/config.yaml", "training.steps=4"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["step"] == 4
    Path("run/sheets").symlink_to(place / "elsewhere")
    assert "run/sheets is a link that leads out of the run's folder" in error_of(
        capsys, "train", "run", "training.steps=5"
    )


def test_the_name_of_a_judge_must_be_valid_for_a_file(place, capsys):
    """A judge stores files in a folder with its name."""
    change(
        "run", tasks={"lm": {"use": "language_modeling", "target": "text", "metrics": {"../../x": {"use": "copies"}}}}
    )
    for words in (["inspect", "run"], ["train", "run", "training.steps=3"]):
        assert "tasks.lm.metrics.../../x: '../../x' is not a valid name" in error_of(capsys, *words)


def test_an_imported_run_names_its_missing_data(place, capsys):
    change("run", data={"dataset": None})
    assert "the imported run has no data; set data.dataset: a name" in error_of(capsys, "train", "run")
    with pytest.raises(ConfigError, match="has no data"):
        load_config("run")
    with pytest.raises(RunError, match="was imported without data"):
        load_run("run").evaluate()
