"""Data files and rows in memory: what is read, what is written, and the message for every kind of bad input."""

import io
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import example, png
from vgid.data import example as example_module
from vgid.data.example import Example, ImageRef
from vgid.data.sources import check_disjoint, check_examples, load_examples, rows_of
from vgid.data.writing import write_examples, write_parquet
from vgid.errors import DataError

GOOD = {"question": "Who is this?", "answer": "Anna.", "image": "a.png"}


def write(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    (folder / "a.png").write_bytes(png())
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_every_field_is_read(tmp_path: Path) -> None:
    row = {"id": "x", **GOOD, "subject": "p1", "keywords": ["Anna"], "tags": ["name"]}
    (example,) = load_examples(write(tmp_path, row))
    assert example == Example(
        id="x",
        question="Who is this?",
        answer="Anna.",
        images=(ImageRef(path=(tmp_path / "a.png").resolve()),),
        subject="p1",
        keywords=("Anna",),
        tags=("name",),
        where=f"{tmp_path / 'data.jsonl'}:1",
    )
    assert example.images[0].open().size == (40, 40)


def test_text_only_rows_several_images_and_blank_lines(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a"}, "", {"question": "q", "answer": "a", "images": ["a.png", "a.png"]}]
    first, second = load_examples(write(tmp_path, *rows))
    assert first.images == () and first.id == "data-1"
    assert len(second.images) == 2 and second.id == "data-3"


def test_messages_are_the_same_as_question_and_answer(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Who is this?"}]
    row = {"image": "a.png", "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Anna."}]}
    (example,) = load_examples(write(tmp_path, row))
    assert (example.question, example.answer, len(example.images)) == ("Who is this?", "Anna.", 1)


def test_prompts_and_completions_are_the_same_too(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Who is this?"}]
    plain = {"prompt": "Who is this?", "completion": "Anna.", "images": ["a.png"]}
    turns = {"prompt": [{"role": "user", "content": parts}], "completion": [{"role": "assistant", "content": "Anna."}], "images": ["a.png"]}
    for found in load_examples(write(tmp_path, plain, turns)):
        assert (found.question, found.answer, len(found.images)) == ("Who is this?", "Anna.", 1)


def test_an_image_folder_with_its_metadata(tmp_path: Path) -> None:
    (example,) = load_examples(write(tmp_path, {"file_name": "a.png", "question": "q", "answer": "a"}, name="metadata.jsonl").parent)
    # All image folders call it that, so that the folder's name is the one that tells.
    assert example.images[0].read() == png() and example.id == f"{tmp_path.name}-1"


def test_one_copy_of_a_picture_is_held(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"image": {"bytes": png(1), "path": None}, "question": f"q{n}", "answer": "a"} for n in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    first, second, third = load_examples(tmp_path / "x.parquet")
    assert first.images[0] is second.images[0] is third.images[0]


def test_parquet_with_bytes_and_a_folder_of_files(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    write(tmp_path, GOOD, name="one.jsonl")
    rows = [{"image": {"bytes": png(1), "path": None}, "question": "q", "answer": "a", "subject": None}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "two.parquet")
    one, two = load_examples(tmp_path)
    assert one.id == "one-1" and two.id == "two-1" and two.where == f"{tmp_path / 'two.parquet'}:1"
    assert two.images[0].read() == png(1) and two.subject is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    shared = ImageRef(data=png(3))
    examples = [
        Example(id="a", question="q — ü?", answer="a", images=(shared,), subject="s", keywords=("a",), tags=("t",)),
        Example(id="b", question="q2", answer="a2", images=(shared, ImageRef(data=png(4)))),
        Example(id="c", question="q3", answer="a3"),
    ]
    write_examples(tmp_path / "sub" / "data.jsonl", examples)
    read = load_examples(tmp_path / "sub" / "data.jsonl")
    assert [(e.id, e.question, e.answer, e.subject, e.keywords, e.tags) for e in read] == [
        (e.id, e.question, e.answer, e.subject, e.keywords, e.tags) for e in examples
    ]
    assert [[ref.read() for ref in e.images] for e in read] == [[ref.read() for ref in e.images] for e in examples]
    assert len(list((tmp_path / "sub" / "images").iterdir())) == 2


def test_fully_transparent_pixels_become_white(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(out, "png")
    assert ImageRef(data=out.getvalue()).open().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json", "malformed JSON"),
        ("[1]", "row is not an object"),
        ({**GOOD, "question": 3}, "question has the wrong type"),
        ({**GOOD, "question": "  "}, "question is empty"),
        ({**GOOD, "answer": ""}, "answer is empty"),
        ({"question": "q"}, "answer is missing"),
        ({**GOOD, "subject": [1]}, "subject has the wrong type"),
        ({**GOOD, "keywords": "Anna"}, "keywords has the wrong type"),
        ({**GOOD, "image": 7}, "image has the wrong type"),
        ({**GOOD, "images": ["a.png"]}, "row has both image and images"),
        ({**GOOD, "image": "http://x/a.png"}, "image is an address"),
        ({**GOOD, "image": "missing.png"}, "image not found"),
        ({**GOOD, "image": "../secret.png"}, "image lies outside the data folder"),
        ({**GOOD, "image": "/etc/passwd"}, "image lies outside the data folder"),
        ({**GOOD, "image": "empty.png"}, "image file is empty"),
        ({**GOOD, "image": "cut.png"}, "image is truncated or damaged"),
        ({**GOOD, "image": "text.png"}, "image of unknown format"),
        ({**GOOD, "image": "huge.png"}, "decompression bomb"),
        ({"messages": "hello"}, "messages of this shape are not supported"),
        ({"messages": [{"role": "system", "content": "x"}]}, "turns of this order are not supported"),
        ({**GOOD, "messages": []}, "row has both question and answer and messages"),
        ({**GOOD, "prompt": "q"}, "row has both question and prompt and answer"),
        ({"prompt": "q", "completion": ""}, "completion is empty"),
        ({"prompt": "q"}, "completion is missing"),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}]}, "prompt and completion are of different kinds"),
        ({**GOOD, "file_name": "a.png"}, "row has both image and file_name"),
    ],
)
def test_bad_rows(tmp_path: Path, row: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_module, "MOST_PIXELS", 40 * 40)
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(png()[:2000])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "huge.png").write_bytes(png(side=41))
    path = write(tmp_path, {**GOOD, "id": "good"}, row)
    with pytest.raises(DataError, match=message) as caught:
        load_examples(path)
    # The place, and never the contents.
    assert f"{path}:2" in str(caught.value) and "Anna" not in str(caught.value) and "Who is" not in str(caught.value)
    assert [e.id for e in load_examples(path, skip_bad_rows=True)] == ["good"]


def test_a_real_bomb_is_refused_before_it_is_decoded() -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "png")  # 400 million pixels in a few kB
    with pytest.raises(DataError, match="decompression bomb"):
        ImageRef(data=out.getvalue()).open()


def test_all_problems_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "{", {"question": "", "answer": "a"}, {**GOOD, "image": "none.png"}, {**GOOD, "id": "data-1"})
    with pytest.raises(DataError) as caught:
        load_examples(path)
    text = str(caught.value)
    assert "4 problems" in text and all(f"{path}:{line}: " in text for line in (2, 3, 4, 5)) and "id used twice" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xlsx", b"a,b", "unknown data format"),
        ("x.jsonl", b"", "data file is empty"),
        ("x.parquet", b"PAR1", "parquet file cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path / name)


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load_examples(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"(?s)no data file in the folder.*see docs/data.md"):
        load_examples(tmp_path)
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "0.png").write_bytes(png(0))
    with pytest.raises(DataError, match="pictures alone ask nothing: add metadata"):
        load_examples(tmp_path)
    (tmp_path / "anna" / "metadata.jsonl").write_text("{}")
    with pytest.raises(DataError, match=f"give the folder that holds them: {tmp_path / 'anna'}"):
        load_examples(tmp_path)


def test_forget_and_retain_must_be_disjoint() -> None:
    def row(id: str, question: str, image: int | None) -> Example:
        images = (ImageRef(data=png(image)),) if image is not None else ()
        return Example(id=id, question=question, answer="a", images=images, where=f"{id}.jsonl:1")

    forget = [row("f1", "Who is this?", 1), row("f2", "Where does Anna live?", None)]
    check_disjoint(forget, [row("r1", "Who is this?", 2), row("r2", "What is this?", 1)])
    with pytest.raises(DataError, match=r"(?s)2 problems.*r1.jsonl:1.*also at f1.jsonl:1.*r2.jsonl:1.*also at f2.jsonl:1"):
        check_disjoint(forget, [row("r1", " who is  THIS?", 1), row("r2", "where does anna live?", None)])
    with pytest.raises(DataError, match=r"(?s)the same id is in the forget set and in the retain set.*different id"):
        check_disjoint(forget, [row("f1", "What is this?", 2)])


def test_the_report_counts(tmp_path: Path) -> None:
    rows = [{**GOOD, "subject": "p"}, {"question": "q", "answer": "a", "keywords": ["a"], "colour": 1}, "{"]
    report = check_examples(write(tmp_path, *rows))
    counts = (report.rows, report.with_image, report.text_only, report.images, report.subjects, report.with_keywords)
    assert counts == (2, 1, 1, 1, 1, 1) and report.unused_columns == ("colour",) and len(report.problems) == 1
    assert "2 good rows, 1 problems" in str(report) and "colour" in str(report)


def test_pictures_that_are_not_drawn_are_let_go(tmp_path: Path) -> None:
    # Decoders stop at the picture's end.
    rows = (replace(example(), id=f"r{n}", images=(ImageRef(data=png() + n.to_bytes(4) * 2500),)) for n in range(1000))
    write_parquet(tmp_path / "rows.parquet", rows)
    tracemalloc.start()
    drawn = load_examples(tmp_path / "rows.parquet", at_most=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of more than 10 MB of pictures a batch of rows and the drawn ones are held.
    assert len(drawn) == 5 and peak < 6e6


def test_rows_are_drawn_while_reading_each_as_likely_as_the_next(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "question": "Who?", "answer": "Anna."}) for i in range(20)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    draws = [[row.id for row in load_examples(file, at_most=5, seed=seed)] for seed in range(400)]
    assert draws[0] == [row.id for row in load_examples(file, at_most=5, seed=0)] != draws[1]
    assert all(len(set(draw)) == 5 and draw == sorted(draw, key=lambda id: int(id[1:])) for draw in draws)
    counts = Counter(id for draw in draws for id in draw)
    # 400 draws of 5 from 20: each row 100 times, with a standard deviation of sqrt(400 x 1/4 x 3/4) = 8.7.
    assert len(counts) == 20 and all(60 < count < 140 for count in counts.values())
    assert [row.id for row in load_examples(file, at_most=20)] == [f"r{i}" for i in range(20)]
    file.write_text("\n".join([*lines, "{"]))
    with pytest.raises(DataError, match=r"rows\.jsonl:21: malformed JSON"):
        load_examples(file, at_most=5)  # all rows are read, also those that are not drawn


# -- rows in memory -------------------------------------------------------------------------------------------------------


class Columns:
    """A stand-in for `datasets.Dataset`: rows as mappings, and names of columns."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.column_names = list({name: None for row in rows for name in row})
        self._rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Rows have all columns, as in Arrow.
        return iter([{name: row.get(name) for name in self.column_names} for row in self._rows])


def picture(mode: str = "RGB") -> Image.Image:
    return ImageRef(data=png()).open().convert(mode)


def in_memory(folder: Path) -> list[dict[str, Any]]:
    """The same row with its picture in every form."""
    (folder / "a.png").write_bytes(png())
    pictures = (picture(), {"bytes": png(), "path": None}, {"bytes": None, "path": str(folder / "a.png")}, str(folder / "a.png"))
    return [{"question": f"Who is number {n}?", "answer": "Anna.", "image": each} for n, each in enumerate(pictures)]


@pytest.mark.parametrize("form", [list, iter, Columns, lambda rows: (row for row in rows)])
def test_rows_in_memory_are_read_like_those_of_files(form: Callable[[list[dict[str, Any]]], Any], tmp_path: Path) -> None:
    examples = load_examples(form([*in_memory(tmp_path), {"prompt": "q", "completion": "a", "subject": "p", "keywords": ("a",)}]))
    assert [(row.id, row.where) for row in examples] == [(f"row-{n}", f"row {n}") for n in range(1, 6)]
    assert all(row.images[0].open().tobytes() == picture().tobytes() and row.answer == "Anna." for row in examples[:4])
    assert (examples[4].question, examples[4].images, examples[4].subject, examples[4].keywords) == ("q", (), "p", ("a",))


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("stored", ["bytes", "path"])
def test_the_same_by_the_library_itself(stored: str, decode: bool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.png").write_bytes(png())
    images = [{"bytes": png(), "path": None} if stored == "bytes" else str(tmp_path / "a.png")] * 2
    data = datasets.Dataset.from_dict({"question": ["q1", "q2"], "answer": ["a"] * 2, "subject": [None, "p"], "image": images})
    data = data.cast_column("image", datasets.Image(decode=decode))
    examples = load_examples(data)
    assert [(row.id, row.question, row.subject) for row in examples] == [("row-1", "q1", None), ("row-2", "q2", "p")]
    assert all(row.images[0].open().tobytes() == picture().tobytes() for row in examples)
    assert load_examples(data.to_iterable_dataset(), at_most=1)[0] in examples
    with pytest.raises(DataError, match="a mapping is not a list of rows"):
        load_examples(datasets.DatasetDict({"train": data}))
    with pytest.raises(DataError, match="lacks columns of questions and answers"):
        load_examples(data.rename_column("question", "asked"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "F"])
def test_a_picture_of_any_mode_becomes_png(mode: str) -> None:
    made = picture("LA").convert("PA") if mode == "PA" else picture(mode)
    (row,) = load_examples([{"question": "q", "answer": "a", "image": made}])
    assert row.images[0].read().startswith(b"\x89PNG")
    assert row.images[0].open().tobytes() == made.convert("RGB").tobytes()


def test_problems_of_rows_in_memory_name_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"question": "Who is this?", "answer": "Anna."}
    bad = [{**good, "answer": None}, {**good, "image": 7}, 3, {**good, "id": "x"}, {**good, "id": "x"}, {**good, "image": "http://a/b.png"}]
    with pytest.raises(DataError) as caught:
        load_examples([good, *bad])
    text = str(caught.value)
    assert "5 problems" in text and all(f"row {number}: " in text for number in (2, 3, 4, 6, 7)) and "Anna" not in text
    assert "answer is missing" in text and "expected: a picture, a path, base64, or {bytes, path}" in text and "also at row 5" in text
    assert [row.id for row in load_examples([good, *bad], skip_bad_rows=True)] == ["row-1", "x"]
    large = picture()
    monkeypatch.setattr(example_module, "MOST_PIXELS", 40 * 40 - 1)
    with pytest.raises(DataError, match=r"row 1: .*decompression bomb"):
        load_examples([{**good, "image": large}])


def test_a_source_that_is_not_a_list_of_rows_is_refused() -> None:
    with pytest.raises(DataError, match="no examples"):
        load_examples([])
    with pytest.raises(DataError, match=r"(?s)a mapping is not a list of rows.*one of its splits"):
        load_examples({"train": []})
    with pytest.raises(DataError, match=r"(?s)lacks columns of questions and answers.*found: caption, picture.*rename_column"):
        load_examples(Columns([{"caption": "Anna.", "picture": 1}]))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([{"question": "q", "answer": "a", "subject": None}])
    with pytest.raises(DataError, match=r'(?s)a table is not a list of rows.*to_dict\("records"\)'):
        load_examples(frame)
    assert len(load_examples(frame.to_dict("records"))) == 1

    def cut_off() -> Iterator[dict[str, Any]]:
        yield {"question": "q", "answer": "a"}
        raise OSError("image file is truncated")

    with pytest.raises(DataError, match=r"(?s)row 2: the data set cannot be read.*found: OSError"):
        load_examples(cut_off())


def test_arrays_and_numbers_of_numpy() -> None:
    numbers = {"id": np.int64(7), "answer": np.float32(2.5), "subject": np.float32("nan"), "keywords": [np.float32(2.5)]}
    (row,) = load_examples([{"question": "q", **numbers}])
    assert (row.id, row.answer, row.subject, row.keywords) == ("7", "2.5", None, ("2.5",))
    for array in (np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8)):
        for images in (array, [array]):
            with pytest.raises(DataError, match=r"(?s)image has the wrong type.*PIL\.Image\.fromarray"):
                load_examples([{"question": "q", "answer": "a", "images": images}])


def test_examples_are_returned_as_they_are() -> None:
    rows = [replace(example(), id=f"r{n}", images=(ImageRef(data=b"not a picture"),)) for n in range(30)]
    assert load_examples(rows) == rows and all(one is other for one, other in zip(load_examples(tuple(rows)), rows, strict=True))
    assert load_examples(rows, at_most=4) == rows
    assert rows_of([]) == [] and rows_of(rows) == rows


def test_ids_start_with_the_name_of_the_source() -> None:
    rows = [{"question": "q", "answer": "a"}]
    forget, retain = (rows_of(rows, name=name) for name in ("forget", "retain"))
    assert (forget[0].id, retain[0].id) == ("forget-1", "retain-1")
    drawn = load_examples(({"question": f"q{n}", "answer": "a"} for n in range(50)), at_most=3, name="retain")
    assert len(drawn) == 3 and all(row.id.startswith("retain-") for row in drawn)
