"""What Minari keeps in another way than arrays: pictures as JPEG bytes, texts; and what its spaces say."""

import io
import json

import numpy as np
import pytest
from chopmix.data.environments.sources import Minari
from chopmix.tokenizers.files.reading import DataError
from PIL import Image

h5py = pytest.importorskip("h5py")
SPACE = {"type": "Box", "dtype": "uint8", "shape": [40, 48, 3]}


def jpeg(number: int, shape=(40, 48, 3)) -> np.ndarray:
    """The bytes of a picture, a bright square at a place of its number."""
    picture, found = np.zeros(shape, np.uint8), io.BytesIO()
    picture[8 : 16 + number, 8 : 24 + 2 * number] = 40 * number + 50
    Image.fromarray(picture).save(found, format="JPEG")
    return np.frombuffer(found.getvalue(), np.uint8)


def written(folder, seen=None, space=SPACE, actions=(0.5, -1.0, 2.0), rewards=(1.0, 0.0, 2.0), **about):
    """One episode of three steps as Minari writes it; `seen` fills in what was observed."""
    (folder / "data").mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-2.0], "high": [2.0]}
    told = {"total_episodes": 1, "data_format": "hdf5", "minari_version": "0.5.4", "action_space": json.dumps(box)}
    told |= {"observation_space": json.dumps(space)} if space else {}
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        (seen or pictures)(group)
        group["actions"] = np.array(actions, np.float32)[:, None]
        group["rewards"], group["terminations"] = np.array(rewards), np.arange(3) == 2
        group["truncations"] = np.zeros(3, bool)
    (folder / "data" / "metadata.json").write_text(json.dumps(told | about))
    return Minari(path=str(folder))


def pictures(group) -> None:
    kept = group.create_dataset("observations", (4,), dtype=h5py.vlen_dtype(np.uint8))
    for number in range(4):
        kept[number] = jpeg(number)


def alike(group) -> None:
    """Minari writes a plain array where all happen to be of one length."""
    group["observations"] = np.stack([jpeg(2)] * 4)


@pytest.mark.parametrize("seen", [pictures, alike])
def test_pictures_are_read_from_their_bytes(tmp_path, seen):
    source = written(tmp_path, seen)
    assert source.about.spaces.observations["observation"].shape == (40, 48, 3) and source.about.spaces.texts == ()
    assert source.about.spaces.action.low == (-2.0,)
    found = source.read().observations["observation"]
    assert found.shape == (3, 40, 48, 3) and found.dtype == np.uint8
    for number, picture in enumerate(found):
        shown = 2 if seen is alike else number
        assert abs(int(picture[11, 14, 0]) - (40 * shown + 50)) < 6 and picture[30, 40].max() < 6


def test_a_group_of_pictures_texts_and_numbers_is_read_by_name(tmp_path):
    def seen(group):
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
    found = written(tmp_path, seen, {"type": "Dict", "subspaces": subspaces}).read()
    assert found.observations["camera"].shape == (3, 40, 48, 3) and found.texts == {"mission": ["go"]}
    assert found.observations["observation.step"][:, 0].tolist() == [0, 2, 4]  # `step` is a column of every episode


def text(*missions):
    return lambda group: group.create_dataset("observations", data=missions, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"space": SPACE | {"shape": [40, 40, 3]}}, r"step 0 is a picture of shape \(40, 48, 3\), not \(40, 40, 3\)"),
        ({"space": SPACE | {"shape": [7, 7, 3]}}, r"as JPEG, which does not give the cells of a \(7, 7, 3\) grid back"),
        ({"space": None}, r"is kept as bytes, and metadata.json \(observation_space\) does not tell of what"),
        ({"seen": lambda group: group.create_dataset("observations", data=np.ones((4, 9), np.uint8))},
         "episode 0: its observation 'observation', step 0: .*image"),
        ({"seen": text("go", "stop", "go", "go"), "space": {"type": "Text"}}, "a text that changes at step 1"),
        ({"actions": (0.5, 700.0, 0.0)}, r"step 1: action \[700.0\] is outside the space: \[-2.0\] to \[2.0\]"),
        ({"actions": (np.nan, 0.0, 0.0)}, r"episode 0, step 0: action \[nan\] is outside the space"),
        ({"rewards": (0.0, 0.0, np.nan)}, "data: episode 0, step 2 has no finite reward, but nan"),
    ],
)  # fmt: skip
def test_what_is_none_is_told_with_its_place(tmp_path, options, told):
    with pytest.raises(DataError, match=told):
        written(tmp_path, **options).read()
