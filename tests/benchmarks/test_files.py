"""Finding files and pictures, streaming rows, and values in all the ways they are stored."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.benchmarks.fixtures import image, write_parquet
from tests.conftest import png
from vgid.benchmarks.common import pictures as pictures_module
from vgid.benchmarks.common.files import locate, parquet_rows, picture, shards
from vgid.benchmarks.common.pictures import Pictures
from vgid.benchmarks.common.values import flattened, mapping, parsed, records, texts
from vgid.errors import DataError


@pytest.mark.parametrize(
    "place", ["a/b.parquet", "a/x/b.parquet", "a-00000-of-00002.parquet", "a.parquet", "data/a-0.parquet", "data/a/b.parquet"]
)
def test_shards_are_found_where_hub_data_sets_have_them(tmp_path: Path, place: str) -> None:
    for name in (place, "ab.parquet", "b/a.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert shards(tmp_path, "a") == [tmp_path / place] and shards(tmp_path, "c") == []
    assert shards(tmp_path / "ab.parquet", "anything") == [tmp_path / "ab.parquet"]


def test_places_are_folders_files_or_ids(tmp_path: Path) -> None:
    assert locate(tmp_path).root == tmp_path and locate(tmp_path).commit is None
    for missing in ("nowhere", "/no/where", "./a/b", "a/b/c"):
        with pytest.raises(DataError, match="no such file or folder"):
            locate(missing)


def test_without_a_network_the_hub_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"(?s)owner/name@abc: the dataset cannot be fetched.*give the folder"):
        locate("owner/name@abc")


def test_rows_come_in_order_over_shards_with_their_places(tmp_path: Path) -> None:
    write_parquet(tmp_path, [{"n": n, "image": image(n), "other": "x"} for n in range(5)], shards=2)
    rows = list(parquet_rows(sorted(tmp_path.glob("*.parquet")), ("n",), ("image", "absent")))
    assert [row.values["n"] for row in rows] == [0, 1, 2, 3, 4] == [row.number - 1 for row in rows]
    assert rows[3].where.endswith("train-00001-of-00002.parquet:1") and set(rows[0].values) == {"n", "image"}
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="parquet file cannot be read"):
        list(parquet_rows([tmp_path / "broken.parquet"], ("n",)))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """300 pictures of 200 kB in row groups of 16: what Arrow holds at any time is a small part of the 60 MB."""
    schema, noise = pa.schema({"image": pa.binary(), "n": pa.int64()}), np.random.default_rng(0)
    with parquet.ParquetWriter(tmp_path / "big.parquet", schema, compression="none") as writer:
        for start in range(0, 304, 16):
            rows = {"image": [noise.bytes(200_000) for _ in range(16)], "n": list(range(start, start + 16))}
            writer.write_table(pa.table(rows, schema=schema))
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for _ in parquet_rows([tmp_path / "big.parquet"], ("image", "n")):
        most, count = max(most, pa.total_allocated_bytes() - before), count + 1
    assert count == 304 and most < 20_000_000


def test_pictures_by_path_in_folders_and_archives(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "1.png").write_bytes(png(1))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("deep/faces/2.png", png(2))
        archive.writestr("other/2.png", png(3))
    pictures = Pictures(tmp_path)
    assert pictures.get("./dataset/faces/1.png", "w").path == tmp_path / "faces" / "1.png"
    assert pictures.get("x/faces/2.png", "w").read() == png(2) and pictures.get("other\\2.png", "w").read() == png(3)
    with pytest.raises(DataError, match=r"(?s)w: several images fit the path.*deep/faces/2.png, other/2.png"):
        pictures.get("2.png", "w")
    for missing in ("3.png", "../secret.png", ""):
        with pytest.raises(DataError, match="the image is missing"):
            pictures.get(missing, "w")


def test_archives_that_are_broken_or_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(1000))
    monkeypatch.setattr(pictures_module, "LARGEST_PICTURE", 999)
    with pytest.raises(DataError, match="too large"):
        Pictures(tmp_path).get("1.png", "w")
    (tmp_path / "b.zip").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"b.zip: the zip archive cannot be read"):
        Pictures(tmp_path).get("1.png", "w")


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="the image is missing"):
        Pictures(tmp_path / "data").get("link.png", "w")


def test_a_picture_is_bytes_or_a_path(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    place = locate(tmp_path)
    for value in ({"bytes": png(1), "path": None}, png(1), "1.png", {"bytes": None, "path": "1.png"}):
        assert picture(value, place, "w").read() == png(1)
    assert isinstance(picture(png(1), place, "w").open(), Image.Image)
    for value in (None, {}, {"bytes": b"", "path": ""}, 7):
        with pytest.raises(DataError, match="image has the wrong type"):
            picture(value, place, "w")


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        np.array([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], dtype=object),
        '[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
        "[{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]",
        {"a": [1, 2], "b": ["x", "y"]},
        {"a": np.array([1, 2]), "b": np.array(["x", "y"], dtype=object)},
        ['{"a": 1, "b": "x"}', "{'a': 2, 'b': 'y'}"],
    ],
)
def test_records_however_they_are_stored(value: Any) -> None:
    assert records(value, "tasks", "w") == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize("value", [3, [1, 2], {"a": 1}, {"a": [1], "b": [1, 2]}, b"[]", '"text"'])
def test_other_values_are_not_records(value: Any) -> None:
    with pytest.raises(DataError, match=r"w: tasks has the wrong type"):
        records(value, "tasks", "w")


def test_texts_mappings_and_nested_values() -> None:
    assert (
        texts(["a", " b "], "t", "w") == texts(np.array(["a", "b"], dtype=object), "t", "w") == texts('["a", "b"]', "t", "w") == ("a", "b")
    )
    assert texts("a", "t", "w") == ("a",) and records(None, "t", "w") == []
    assert flattened({"x": ["a", {"y": "b"}], "z": 3, "w": " "}) == ("a", "b")
    for bad in (None, [1], ["a", ""], 5):
        with pytest.raises(DataError, match="t has the wrong type"):
            texts(bad, "t", "w")
    with pytest.raises(DataError, match="too few entries"):
        texts([], "t", "w")
    with pytest.raises(DataError, match="expected: an object"):
        mapping("[1]", "t", "w")
    with pytest.raises(DataError, match="too long to parse"):
        parsed("x" * 4_000_001, "t", "w")
    with pytest.raises(DataError, match="cannot be parsed"):
        parsed("(" * 50_000, "t", "w")
