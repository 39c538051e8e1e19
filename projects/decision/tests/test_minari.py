"""Minari data sets: images stored as JPEG bytes, texts, descriptions of spaces, and malicious files."""

import io
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from chopmix.files.reading import DataError
from chopmix.projects.decision.recording.sources import Minari
from PIL import Image

h5py = pytest.importorskip("h5py")
SPACE = {"type": "Box", "dtype": "uint8", "shape": [40, 48, 3]}


def jpeg(number: int, shape=(40, 48, 3)) -> np.ndarray:
    """The bytes of an image with a bright rectangle, whose size and brightness depend on `number`."""
    image, stream = np.zeros(shape, np.uint8), io.BytesIO()
    image[8 : 16 + number, 8 : 24 + 2 * number] = 40 * number + 50
    Image.fromarray(image).save(stream, format="JPEG")
    return np.frombuffer(stream.getvalue(), np.uint8)


def write_episode(folder, observe=None, space=SPACE, actions=(0.5, -1.0, 2.0), rewards=(1.0, 0.0, 2.0), **about):
    """Write one episode of three steps as Minari does; `observe` writes the observations into its group."""
    (folder / "data").mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-2.0], "high": [2.0]}
    metadata = {"total_episodes": 1, "data_format": "hdf5", "minari_version": "0.5.4"}
    metadata |= {"action_space": json.dumps(box)} | ({"observation_space": json.dumps(space)} if space else {})
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        (observe or pictures)(group)
        group["actions"] = np.array(actions, np.float32)[:, None]
        group["rewards"], group["terminations"] = np.array(rewards), np.arange(3) == 2
        group["truncations"] = np.zeros(3, bool)
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata | about))
    return Minari(path=str(folder))


def pictures(group) -> None:
    kept = group.create_dataset("observations", (4,), dtype=h5py.vlen_dtype(np.uint8))
    for number in range(4):
        kept[number] = jpeg(number)


def same_length(group) -> None:
    """Minari writes a plain array if all images have the same number of bytes."""
    group["observations"] = np.stack([jpeg(2)] * 4)


@pytest.mark.parametrize("observe", [pictures, same_length])
def test_pictures_are_read_from_their_bytes(tmp_path, observe):
    source = write_episode(tmp_path, observe)
    assert source.about.spaces.observations["observation"].shape == (40, 48, 3) and source.about.spaces.texts == ()
    assert source.about.spaces.action.low == (-2.0,)
    images = source.read().observations["observation"]
    assert images.shape == (3, 40, 48, 3) and images.dtype == np.uint8
    for step, picture in enumerate(images):
        number = 2 if observe is same_length else step
        assert abs(int(picture[11, 14, 0]) - (40 * number + 50)) < 6 and picture[30, 40].max() < 6


def test_a_group_of_pictures_texts_and_numbers_is_read_by_name(tmp_path):
    def observe(group):
        pictures(group)
        group.move("observations", "kept")
        inner = group.create_group("observations")
        group.move("kept", "observations/camera")
        inner["step"] = np.arange(8, dtype=np.float32).reshape(4, 2)
        inner.create_dataset("mission", data=["go"] * 4, dtype=h5py.string_dtype())

    subspaces = {
        "camera": SPACE,
        "step": {"type": "Box", "shape": [2], "dtype": "float32"},
        "mission": {"type": "Text"},
    }
    episodes = write_episode(tmp_path, observe, {"type": "Dict", "subspaces": subspaces}).read()
    assert episodes.observations["camera"].shape == (3, 40, 48, 3) and episodes.texts == {"mission": ["go"]}
    assert episodes.observations["observation.step"][:, 0].tolist() == [0, 2, 4]  # `step` is a column of every episode


def text(*missions):
    return lambda group: group.create_dataset("observations", data=missions, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": SPACE | {"shape": [40, 40, 3]}}, r"step 0 is an image of shape \(40, 48, 3\), not \(40, 40, 3\)"),
        ({"space": SPACE | {"shape": [7, 7, 3]}}, r"a grid of shape \(7, 7, 3\), stored as JPEG, which changes"),
        ({"space": None}, r"is stored as bytes, but metadata.json \(observation_space\) does not describe them"),
        ({"observe": lambda group: group.create_dataset("observations", data=np.ones((4, 9), np.uint8))},
         "episode 0: its observation 'observation', step 0: .*image"),
        ({"observe": text("go", "stop", "go", "go"), "space": {"type": "Text"}}, "a text that changes at step 1"),
        ({"actions": (0.5, 700.0, 0.0)}, r"step 1: action \[700.0\] is outside the space: \[-2.0\] to \[2.0\]"),
        ({"actions": (np.nan, 0.0, 0.0)}, r"episode 0, step 0: action \[nan\] is outside the space"),
        ({"rewards": (0.0, 0.0, np.nan)}, "data: episode 0, step 2: the reward nan is not finite"),
    ],
)  # fmt: skip
def test_bad_values_are_reported_with_their_step(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        write_episode(tmp_path, **options).read()


# ------------------------------------------------------------------------------------------------- malicious files


def folder_with(folder, name, change):
    """Write a folder as Minari does, in which the member `name` of the episode is replaced."""
    source = write_episode(
        folder, lambda group: group.create_dataset("observations", data=np.zeros((4, 2))), space=None
    )
    path = folder / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        group = file["episode_0"]
        del group[name]
        change(group, name)
    return source


def outside(group, name):
    """An array whose numbers are stored in another file."""
    size = 8 if name != "actions" else 4
    group.create_dataset(name, (3,), np.float64 if size == 8 else np.float32, external=[("/etc/hostname", 0, 3 * size)])


def virtual(group, name):
    layout = h5py.VirtualLayout((3,), np.float64)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3,))
    group.create_virtual_dataset(name, layout)


def linked(link):
    def change(group, name):
        group[name] = link

    return change


def unwritten(shape, chunks=True, kind=np.float64, **more):
    """An array that is declared but not written, so that it takes no space in the file."""

    def change(group, name):
        group.create_dataset(name, shape, kind, chunks=chunks, **more)

    return change


def expanding(group, name):
    """A chunk for 24 bytes that decompresses to 2 GB."""
    array = group.create_dataset(name, (3,), np.float64, chunks=(3,), compression="gzip")
    packed, zeros = zlib.compressobj(9), bytes(2**24)
    first, block = (packed.compress(zeros) + packed.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    array.id.write_direct_chunk((0,), first + 127 * block + packed.flush())


HOSTILE = {
    "soft": (linked(h5py.SoftLink("/episode_0/terminations")), "{name!r} is a link; links are not followed"),
    "dangling": (linked(h5py.SoftLink("/nowhere")), "{name!r} is a link; links are not followed"),
    "external link": (linked(h5py.ExternalLink("/etc/hostname", "/x")), "{name!r} is a link; links are not followed"),
    "external": (outside, "{name!r} is stored in other files, which are not read"),
    "virtual": (virtual, "{name!r} is stored in other files, which are not read"),
    "steps": (unwritten((2**31,), (1024,)), r"{name!r} holds 17,179,869,184 bytes"),
    "wide": (unwritten((3, 2**30), (1, 1024), np.uint8), r"{name!r} holds 3,221,225,472 bytes"),
    "bytes": (unwritten((2**26,), (2**20,), np.int8), r"{name!r} holds 536,870,912 bytes"),  # in memory
    "chunk": (unwritten((3,), (2**28,), maxshape=(None,)), r"{name!r} holds 2,147,483,648 bytes"),
    "text": (unwritten((3,), None, "S999999999"), r"{name!r} holds 2,999,999,997 bytes"),
    "packed": (expanding, r"{name!r} has compressed chunks of up to .* bytes"),
    "filter": (unwritten((3,), (3,), np.int64, scaleoffset=4),
               "{name!r} is compressed by the filter 'scaleoffset'; possible are"),
    "empty": (lambda group, name: group.create_dataset(name, data=h5py.Empty("f")), "{name!r} has no shape"),
    "type": (lambda group, name: group.__setitem__(name, np.dtype("f8")), "{name!r} is not an array"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["actions", "rewards", "terminations", "truncations", "observations"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_links_other_files_and_bombs_are_refused_before_they_are_read(tmp_path, kind, name):
    change, message = HOSTILE[kind]
    source = folder_with(tmp_path, name, change)
    with pytest.raises(DataError, match=message.format(name=name)):
        source.read()


@pytest.mark.parametrize("link", [h5py.SoftLink("/episode_1"), h5py.ExternalLink("other.hdf5", "/x")])
def test_an_episode_that_is_a_link_is_refused(tmp_path, link):
    source = folder_with(tmp_path, "actions", lambda group, name: group.parent.__setitem__("episode_1", link))
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0"]
        file["episode_0"] = link
    with pytest.raises(DataError, match="'episode_0' is a link; links are not followed"):
        source.read()


def test_an_array_with_several_hard_links_counts_several_times(tmp_path):
    """1,000 hard links to one episode of 4 MiB."""
    source = folder_with(tmp_path, "observations", unwritten((4, 2**20), (1, 2**20), np.uint8))
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "r+") as file:
        for number in range(1, 1000):
            file[f"episode_{number}"] = file["episode_0"]
    metadata = json.loads((tmp_path / "data" / "metadata.json").read_text()) | {"total_episodes": 1000}
    (tmp_path / "data" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"episode 6\d: its 'observations' holds .* bytes; all arrays of a file of"):
        source.read()


def test_variable_length_rows_with_the_same_bytes_count_several_times(tmp_path):
    """Images and texts are counted when they are read: 5,000 rows that refer to the same 1 MiB."""

    def change(group, name):
        array = group.create_dataset(name, (5000,), h5py.vlen_dtype(np.uint8))
        array[0] = np.zeros(2**20, np.uint8)
        group.file.flush()
        repeated.append((group.file.filename, array.id.get_offset()))

    repeated: list = []
    source = folder_with(tmp_path, "observations", change)
    path, offset = repeated[0]
    with open(path, "r+b") as file:  # all rows refer to the bytes of the first row
        file.seek(offset)
        first = file.read(16)
        file.seek(offset)
        file.write(first * 5000)
    with pytest.raises(DataError, match=r"its observation 'observation' holds .* bytes; all arrays of a file"):
        written_actions(path, 4999)
        source.read()


def written_actions(path, steps):
    """Replace the arrays of the episode by arrays of `steps` steps."""
    with h5py.File(path, "r+") as file:
        group = file["episode_0"]
        for name, kind in (
            ("actions", np.float32),
            ("rewards", np.float64),
            ("terminations", bool),
            ("truncations", bool),
        ):
            del group[name]
            values = np.zeros((steps, 1), kind) if name == "actions" else np.zeros(steps, kind)
            group[name] = values if name != "terminations" else np.arange(steps) == steps - 1


PEAK = """
import resource, sys
from chopmix.projects.decision.recording.sources import Minari
from chopmix.files.reading import DataError
import h5py
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for folder in sys.argv[1:]:
    try:
        Minari(path=folder).read()
    except DataError as error:
        print(peak() - before, error)
"""


@pytest.mark.system
def test_bombs_take_no_memory(tmp_path):
    """The files have less than 3 MiB. The memory is measured in another process, without that of its imports."""
    kinds = ("steps", "wide", "chunk", "text", "packed")
    for kind in kinds:
        folder_with(tmp_path / kind, "observations", HOSTILE[kind][0])
        assert (tmp_path / kind / "data" / "main_data.hdf5").stat().st_size < 3 * 2**20
    folders = [str(tmp_path / kind) for kind in kinds]
    done = subprocess.run([sys.executable, "-c", PEAK, *folders], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(kinds), done.stderr
    assert all("'observations'" in line and int(line.split()[0]) < 100 for line in lines), lines
