"""Rows and files in every format: each is read as the corpus says, or refused for the reason it says."""

import base64
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.conftest import png
from vgid.benchmarking.splits import check_data
from vgid.data.conversation import messages
from vgid.data.example import IMAGE, Example, ImageRef
from vgid.data.problems import Notes
from vgid.data.readers import json_rows
from vgid.data.readers.base import RawRow
from vgid.data.rows import Reading, RowReader
from vgid.data.sources import check_examples, load_examples, split_files
from vgid.data.writing import write_examples, write_parquet
from vgid.errors import DataError

CORPUS = yaml.safe_load((Path(__file__).parent / "corpus" / "rows.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("corpus")
    for number in range(3):
        (made / f"{number}.png").write_bytes(png(number, side=8))
    return made


def as_read(examples: list[Example]) -> list[list[Any]]:
    """Question, answer, numbers of the pictures, and context."""
    numbers = {png(number, side=8): number for number in range(3)}
    return [[e.question, e.answer, [numbers[r.read()] for r in e.images], [list(turn) for turn in e.context]] for e in examples]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: json.dumps(case["row"])[:60])
def test_rows(case: dict[str, Any], folder: Path) -> None:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(case["row"]))
    options = {"turns": case.get("turns", "last")}
    if "error" in case:
        with pytest.raises(DataError) as caught:
            load_examples(file, **options)
        assert case["error"] in str(caught.value) and f"{file}:1" in str(caught.value), str(caught.value)
        return
    read = load_examples(file, **options)
    assert as_read(read) == [[*row, *([], [])[len(row) - 2 :]] for row in case["read"]]
    # What is written is read back to the same, in both formats.
    write_parquet(folder / "again.parquet", read)
    write_examples(folder / "again.jsonl", read)
    for name in ("again.parquet", "again.jsonl"):
        again = load_examples(folder / name)
        assert as_read(again) == as_read(read) and [e.derived for e in again] == [e.derived for e in read]


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 120 and len({json.dumps(case) for case in CORPUS}) == len(CORPUS)


# -- files ----------------------------------------------------------------------------------------------------------------

ROW = {"question": "Q", "answer": "A"}


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


ROWS = [ROW, {"question": "Q2", "answer": "A2"}]
TEXT = json.dumps(ROWS).encode()
PICTURE = png(0, side=8)
FILES: list[tuple[str, bytes, list[str] | str]] = [
    ("a.json", TEXT, ["Q", "Q2"]),
    ("a.json", b"\xef\xbb\xbf" + TEXT, ["Q", "Q2"]),
    ("a.json", b"[]", "no examples"),
    ("a.json", b"\n".join(json.dumps(row).encode() for row in ROWS), ["Q", "Q2"]),
    ("a.jsonl", TEXT, ["Q", "Q2"]),
    ("a.jsonl", json.dumps(ROWS, indent=1).encode(), ["Q", "Q2"]),
    ("a.ndjson", json.dumps(ROW).encode(), ["Q"]),
    ("a.jsonl.gz", gzip.compress(json.dumps(ROW).encode(), mtime=0), ["Q"]),
    ("a.json.gz", gzip.compress(TEXT, mtime=0), ["Q", "Q2"]),
    ("a.jsonl.gz", gzip.compress(json.dumps(ROW).encode() * 99, mtime=0)[:-20], "the file cannot be read"),
    ("a.jsonl.gz", b"no gzip", "the file cannot be read"),
    ("a.json", TEXT[:-1], "malformed JSON"),
    ("a.json", TEXT[:-20], "malformed JSON"),
    ("a.json", TEXT + b"{}", "malformed JSON"),
    ("a.json", b"[{} {}]", "question is missing"),
    ("a.json", b"[" * 100_000, "nested too deeply"),
    ("a.jsonl", b'{"question":' * 100_000, "nested too deeply"),
    ("a.jsonl", b'{"question": "Q", "answer": "A", "answer": "B"}', "row has a name twice"),
    ("a.json", b'[{"question": "Q", "answer": "A", "answer": "B"}]', "row has a name twice"),
    ("a.jsonl", b'{"question": "\\ud800", "answer": "A"}', "half of a surrogate pair"),
    ("a.jsonl", b'{"question": "Q", "answer": "\\udc00"}', "half of a surrogate pair"),
    ("a.jsonl", b'{"question": "\xff", "answer": "A"}', "line is not UTF-8"),
    ("a.json", b'[{"question": "\xff", "answer": "A"}]', "file is not UTF-8"),
    ("a.jsonl", b'{"question": "Q", "answer": NaN}', "(?s)answer is missing.*rows without answers are taken too"),
    ("a.json", b'{"data": [{"question": "Q", "answer": "A"}]}', "data seems to hold the rows: write that list alone"),
    ("a.json", b'{\n  "data": [\n    {"question": "Q", "answer": "A"}\n  ]\n}', "the file is one object over several lines"),
    ("a.json", b'{"question": "Q",\n "answer": "A"}', "the file is one object over several lines"),
    ("a.jsonl", b'{"question": "Q", "answer": Infinity}', "answer is not a number"),
    ("metadata.csv", b"file_name,question,answer\n0.png,Q,A\n,Q2,A2\n", ["Q", "Q2"]),
    ("a.tsv", b"question\tanswer\nQ\tA\n", ["Q"]),
    ("a.csv", b'question,answer,keywords\n"Q, r",A B,"[""A"", ""B""]"\n', ["Q, r"]),
    ("a.csv", b"question,answer,keywords\nQ,A B,A\n", ["Q"]),
    ("a.csv", b",question,answer\n0,Q,A\n", ["Q"]),
    ("a.csv", b"question,,answer\nQ,x,A\n", "does not name every column once"),
    ("a.csv", b"question,answer,keywords\nQ,A,['A']\n", r"(?s)a\.csv:2: keywords is not a list as JSON.*json\.dumps"),
    ("a.csv", b"question,answer,weight\nQ,A,0\n", "row has weight, which no run honours"),
    ("a.csv", b"question;answer\nQ;A\n", "a single column"),
    ("a.csv", b"question,answer\nQ,A,B\n", "another number of cells"),
    ("a.csv", b"question,question\nQ,A\n", "does not name every column once"),
    ("a.csv", b'question,answer\n"Q,A\n', "malformed table"),
    ("a.csv", b"question,answer\nQ\0,A\n", "zero characters"),
    ("a.csv", b"question,answer\n\xff,A\n", "file is not UTF-8"),
    ("a.csv", b"question,answer\n", "no examples"),
    ("a.csv", b"\xef\xbb\xbf", "does not name every column once"),
    ("a.csv", b"\nquestion,answer\nQ,A\n", "does not name every column once"),
    ("A.TSV", b"question\tanswer\nQ, r\tA\n", ["Q, r"]),
    ("A.JSONL.GZ", gzip.compress(json.dumps(ROW).encode(), mtime=0), ["Q"]),
    ("a.tar", tar_of({"x.json": json.dumps(ROW).encode(), "x.png": PICTURE}), ["Q"]),
    ("a.tar", tar_of({"x.question.txt": b"Q", "x.answer.txt": b"A", "x.1.png": PICTURE, "x.0.png": PICTURE}), ["Q"]),
    ("a.tar", tar_of({"x.json": json.dumps(ROW | {"image": ["n.png", "m.png"]}).encode(), "x.png": PICTURE}), "another number of pictures"),
    ("a.tar", tar_of({"x.json": json.dumps(ROW).encode(), "x.mp4": b"film"}), "sample holds a .mp4 file"),
    ("a.tar", tar_of({"x.json": b"[]"}), "JSON is not an object"),
    ("a.tar", tar_of({"a.jsonl": json.dumps(ROW).encode()}), r"(?s)the tar file holds a \.jsonl file.*unpack it"),
    ("a.tar", tar_of({"x.json": b"[" * 100_000}), "nested too deeply"),
    ("a.tar", tar_of({"x.json": json.dumps(ROW).encode(), "x.png": PICTURE, "x.PNG": PICTURE}), "two files of one sample"),
    ("a.tar", tar_of({"x.json": json.dumps(ROW).encode(), "y.json": b"{}", "x.png": PICTURE}), "files of one sample are apart"),
    ("a.tar", b"no tar" * 200, "tar file cannot be read"),
    ("a.parquet", b"PAR1", "parquet file cannot be read"),
    ("a.xlsx", b"PK", "unknown data format"),
    ("a.jsonl", b"", "the data file is empty"),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "(?s)git left a pointer.*git lfs pull"),
    ("a.jsonl", b'{"question": "Q", "answer": ' + b"9" * 5000 + b"}", "a number of thousands of digits"),
]


@pytest.mark.parametrize(("name", "content", "expected"), FILES)
def test_files(name: str, content: bytes, expected: list[str] | str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PICTURE)
    (tmp_path / name).write_bytes(content)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            load_examples(tmp_path / name)
    else:
        assert [row.question for row in load_examples(tmp_path / name)] == expected


def test_an_entry_that_is_too_long_has_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "PIECE", 10)
    monkeypatch.setattr(json_rows, "MOST_BYTES", 100)
    (tmp_path / "a.json").write_text(json.dumps([ROW, ROW | {"answer": "A" * 200}]))
    with pytest.raises(DataError, match=r"a\.json:2: entry is too long"):
        load_examples(tmp_path / "a.json")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two files of rows, as `datasets.Dataset.save_to_disk` writes them."""
    import pyarrow as pa

    labels = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}
    folder = tmp_path / "saved"
    folder.mkdir()
    for number in range(2):
        rows = [{"question": f"Q{number}", "answer": number, "image": {"bytes": png(number, side=8), "path": None}}]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(labels)})
        with pa.OSFile(str(folder / f"data-{number}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"data-{number}.arrow"} for number in range(2)]}))
    return folder


def test_folders_of_save_to_disk(saved: Path) -> None:
    read = load_examples(saved)
    assert as_read(read) == [["Q0", "no", [0], []], ["Q1", "yes", [1], []]]
    assert [(row.id, row.where) for row in read] == [("saved-1", f"{saved}:1"), ("saved-2", f"{saved}:2")]
    assert split_files([saved]) == {"saved": [saved]}
    state = json.loads((saved / "state.json").read_text())
    for changed, message in (
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "a choice of other rows"),
        ({"_data_files": []}, "no files"),
        ({"_data_files": [{"filename": "none.arrow"}]}, "saved data set cannot be read"),
    ):
        (saved / "state.json").write_text(json.dumps(state | changed))
        with pytest.raises(DataError, match=message):
            load_examples(saved)


def test_splits_of_save_to_disk(saved: Path) -> None:
    whole = saved.parent / "whole"
    whole.mkdir()
    saved.rename(whole / "forget")
    (whole / "dataset_dict.json").write_text('{"splits": ["forget"]}')
    assert split_files([whole]) == {"forget": [whole / "forget"]}
    with pytest.raises(DataError, match=r"(?s)several splits.*give one of them: forget"):
        load_examples(whole)


def test_ids_of_all_files_of_a_split_differ(tmp_path: Path) -> None:
    files = [tmp_path / f"train-0000{number}-of-00002.jsonl" for number in range(2)]
    for file, bad in zip(files, ("{}", "{"), strict=True):
        file.write_text(f"{json.dumps(ROW | {'id': 'x'})}\n{bad}\n")
    (report,) = check_data([str(tmp_path)]).splits.values()
    places = [problem.split(": ")[0] for problem in report.problems]
    assert report.rows == 1 and places == [f"{files[0]}:2", f"{files[1]}:1", f"{files[1]}:2"] and "id used twice" in report.problems[1]


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(ROW | {"image": name}) + "\n" for name in ("round", "round/a.png", "pipe.png")))
    with pytest.raises(DataError) as caught:
        load_examples(tmp_path / "a.jsonl")
    assert "3 problems" in str(caught.value) and "image is not an ordinary file" in str(caught.value)
    for name, message in (("pipe.jsonl", "not an ordinary file"), ("a\0b.jsonl", "no such file"), ("round", "cannot be read|unknown data")):
        with pytest.raises(DataError, match=message):
            load_examples(tmp_path / name)


def test_parquet_columns_of_every_type(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    times = pa.array([1], pa.timestamp("ns", tz="Europe/Oslo"))
    labels = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}
    table = pa.table({"question": ["Q"], "answer": pa.array([1], pa.int64()), "seen": times})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(labels)}), tmp_path / "a.parquet")
    assert [row.answer for row in load_examples(tmp_path / "a.parquet")] == ["yes"]
    assert check_examples(tmp_path / "a.parquet").unused_columns == ("seen",)
    parquet.write_table(pa.table({"question": ["Q"], "answer": ["A"], "video": times}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="row has video, which would be lost"):
        load_examples(tmp_path / "v.parquet")
    views = pa.table({"question": pa.array(["Q"], pa.string_view()), "answer": pa.array(["A"], pa.string_view())})
    parquet.write_table(views, tmp_path / "s.parquet")
    assert [row.answer for row in load_examples(tmp_path / "s.parquet")] == ["A"]
    parquet.write_table(views.slice(1), tmp_path / "none.parquet")
    assert "no examples" in check_examples(tmp_path / "none.parquet").problems[0]
    parquet.write_table(pa.table({"question": ["Q"], "answer": times}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column answer holds no text"):
        load_examples(tmp_path / "b.parquet")
    parquet.write_table(pa.table({"question": ["Q"], "answer": ["A"], "image": [{"bytes": None, "path": "0.png"}]}), tmp_path / "c.parquet")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "0.png").write_bytes(PICTURE)
    assert load_examples(tmp_path / "c.parquet", image_root=tmp_path / "root")[0].images[0].read() == PICTURE


def test_reading_stops_where_no_row_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgid.data.problems.MOST_PROBLEMS", 30)
    (tmp_path / "a.jsonl").write_text("{}\n" * 100)
    report = check_examples(tmp_path / "a.jsonl")
    assert len(report.problems) == 31 and "reading stopped after 30 bad rows" in report.problems[-1]
    assert str(report).count("question is missing") == 20 and "... and 11 more problems" in str(report)


def test_names_of_files_reach_no_terminal_raw() -> None:
    text = str(DataError("bad", where="a\x1b[2J\nb\u202e.jsonl", got="\ud800"))
    assert text == "a\\x1b[2J\\nb\\u202e.jsonl: bad\n  found: \\ud800"


# -- pictures -------------------------------------------------------------------------------------------------------------


def encoded(picture: Image.Image, kind: str = "png", **options: Any) -> ImageRef:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return ImageRef(data=out.getvalue())


def test_exif_orientation_turns_the_picture() -> None:
    picture = Image.new("RGB", (4, 2), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the first row becomes the last column
    ref = encoded(picture, exif=exif)
    assert ref.size() == ref.open().size == (2, 4) and ref.open().getpixel((1, 0)) == (0, 0, 0)
    assert ImageRef.from_picture(Image.open(io.BytesIO(ref.read()))).open().getpixel((1, 0)) == (0, 0, 0)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    ref = encoded(Image.frombytes("I;16", (3, 1), b"\x00\x00\x00\x80\xff\xff"))
    # 0, 32768 and 65535, divided by 257.
    assert [ref.open().getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (127,) * 3, (255,) * 3]


def test_kinds_of_pictures() -> None:
    palette = Image.new("P", (2, 2))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert encoded(palette, transparency=0).open().getpixel((0, 0)) == (255, 255, 255)
    assert encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "jpeg").open().getpixel((0, 0)) == (255, 255, 255)
    moving = encoded(Image.new("RGB", (2, 2), "red"), "gif", save_all=True, append_images=[Image.new("RGB", (2, 2), "blue")])
    assert moving.frames == 2 and moving.open().getpixel((0, 0)) == (255, 0, 0)
    for values in (0.5, 1.0, float("nan"), 1e6, -1.0):  # of these, 0.5 and 1.0 would become black
        with pytest.raises(DataError, match="neither of 8 nor of 16 bits"):
            encoded(Image.new("F", (2, 2), values), "tiff").open()
    assert encoded(Image.new("F", (2, 2), 65535.0), "tiff").open().getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="git lfs pull"):
        ImageRef(data=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").open()
    assert encoded(Image.new("RGB", (1, 1), "red")).open().size == (1, 1)
    with pytest.raises(DataError, match="too long and narrow"):
        encoded(Image.new("RGB", (201, 1))).open()
    with pytest.raises(DataError, match=r"(?s)unknown format.*vgid\[heic\]|unknown format|damaged"):
        ImageRef(data=b"\x00\x00\x00\x18ftypheic" + bytes(40)).open()


def test_photos_of_phones_are_read_and_turned_once() -> None:
    """As HEVC: the writer turns the EXIF orientation into one of its own, which the reader applies, and nobody applies it again."""
    heif = pytest.importorskip("pillow_heif", reason='pip install -e ".[heic]"')
    photo = Image.new("RGB", (64, 32), "white")
    photo.paste((0, 0, 0), (0, 0, 32, 32))  # the left half is black
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise: the left half comes to the top
    heif.from_pillow(photo).save(out, quality=90, exif=exif.tobytes())
    ref = ImageRef(data=out.getvalue())
    assert out.getvalue()[4:8] == b"ftyp" and ref.size() == ref.open().size == (32, 64) and ref.frames == 1
    top, bottom = (ref.open().getpixel((16, y)) for y in (8, 56))
    assert max(top) < 30 and min(bottom) > 225  # type: ignore[type-var]
    (row,) = load_examples([{"question": "Q", "answer": "A", "image": base64.b64encode(ref.read()).decode()}])
    assert row.images == (ref,)


# -- shapes of messages ---------------------------------------------------------------------------------------------------


def shape(rng: Random) -> tuple[dict[str, Any], list[Any]]:
    """A random row of turns, and its texts and pictures in order; placeholders and columns need not agree."""
    row: dict[str, Any] = {}
    said: list[Any] = []
    given = iter(bytes([number]) for number in range(1, 250))
    own: list[bytes] = []
    flat = rng.random() < 0.3

    def picture() -> bytes:
        said.append(next(given))
        return said[-1]

    def content(role: str) -> Any:
        shown = role == "user"
        pieces = rng.choices(
            ("text", "mark", "image", "number"), (8, 2 * shown, 3 * (shown and not flat), 0.1 * (not flat)), k=rng.randint(1, 4)
        )
        made: list[Any] = []
        for piece in pieces:
            if piece == "text":
                said.append(f"w{len(said)}")
                made.append({"type": "text", "text": said[-1]})
            elif piece == "mark":
                own.append(picture())
                made.append({"type": "text", "text": IMAGE} if flat or rng.random() < 0.5 else {"type": "image"})
            elif piece == "image":
                made.append({"type": "image", rng.choice(("image", "bytes")): picture()})
            else:
                made.append(7)
        return "".join(part["text"] if isinstance(part, dict) else "7" for part in made) if flat else made

    roles = rng.choice((["user", "assistant"], ["system", "user", "assistant"], ["user", "assistant"] * 2, ["assistant", "user"]))
    row["messages"] = [{"role": role, "content": content(role)} for role in roles]
    if rng.random() < 0.05:  # in a field of the turn, as Ollama has it
        rng.choice(row["messages"])[rng.choice(("images", "image", "photo"))] = [picture()]
    if rng.random() < 0.05:  # in a column of a name that is not read
        row[rng.choice(("photo", "picture", "seen"))] = {"bytes": picture(), "path": None}
    if own and rng.random() < 0.1:
        own.pop()
    elif own and rng.random() < 0.05:
        own.append(b"\xff")
    row |= {"images": own} if own else {}
    return row, said


def of_example(example: Example) -> list[Any]:
    """Texts and pictures in the order in which the chat template gets them."""
    pictures = iter(example.images)
    parts = [part for turn in messages(example) for part in turn["content"]]
    return [next(pictures).data if part["type"] == "image" else part["text"] for part in parts] + [example.answer]


def _pieces(parts: list[Any]) -> list[Any]:
    """Words and pictures: neighbouring texts are one text to the model, and each of our words begins with a w."""
    return [piece for part in parts for piece in (part.replace("w", " w").split() if isinstance(part, str) else [part])]


def test_ten_thousand_shapes_keep_every_text_and_picture_in_order() -> None:
    rng = Random(0)
    good = 0
    reader = RowReader(Reading(), Notes())
    for number in range(10_000):
        row, said = shape(rng)
        try:
            (example,) = reader.read(RawRow("row", f"r{number}", None, row))
        except DataError:
            continue
        good += 1
        assert _pieces(of_example(example)) == _pieces(said), row
    assert good > 3_000
