"""Data files: what is read, what comes back, and what every kind of bad input is told."""

import io
import json
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import example, png
from vgid.data import example as example_module
from vgid.data.example import Example, ImageRef
from vgid.data.sources import check_disjoint, check_examples, load_examples, write_examples, write_parquet
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
        Example(id="a", question="q — ü?", answer="a", images=(shared,), subject="s", keywords=("k",), tags=("t",)),
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
        ("[1]", "row is no object"),
        ({**GOOD, "question": 3}, "question has the wrong type"),
        ({**GOOD, "question": "  "}, "question is empty"),
        ({**GOOD, "answer": ""}, "answer is empty"),
        ({"question": "q"}, "answer is missing"),
        ({**GOOD, "subject": 1}, "subject has the wrong type"),
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
        ({"messages": [{"role": "system", "content": "x"}]}, "messages of this shape are not supported"),
        ({**GOOD, "messages": []}, "row has both question and answer and messages"),
        ({**GOOD, "prompt": "q"}, "row has both question and answer and prompt"),
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
        ("x.csv", b"a,b", "unknown data format"),
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
    with pytest.raises(DataError, match="no data file in the folder"):
        load_examples(tmp_path)


def test_forget_and_retain_must_be_disjoint() -> None:
    def row(id: str, question: str, image: int | None) -> Example:
        images = (ImageRef(data=png(image)),) if image is not None else ()
        return Example(id=id, question=question, answer="a", images=images, where=f"{id}.jsonl:1")

    forget = [row("f1", "Who is this?", 1), row("f2", "Where does Anna live?", None)]
    check_disjoint(forget, [row("r1", "Who is this?", 2), row("r2", "What is this?", 1)])
    with pytest.raises(DataError, match=r"(?s)2 problems.*r1.jsonl:1.*also at f1.jsonl:1.*r2.jsonl:1.*also at f2.jsonl:1"):
        check_disjoint(forget, [row("r1", " who is  THIS?", 1), row("r2", "where does anna live?", None)])


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
