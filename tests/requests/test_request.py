"""Request folders: what is read, what is refused, and that error messages repeat nothing."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.conftest import example, png
from vgid.config import load_config
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError
from vgid.instructions import instruction_text
from vgid.requests.keys import Key, new_secret, read_key, write_key
from vgid.requests.request import PRIVATE, parse_request
from vgid.requests.resolved import resolve_run
from vgid.settings import DataConfig

from .runs import make_options

ROWS = [replace(example(n), keywords=("Anna Keller",)) for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_examples(tmp_path / "request" / "rows.jsonl", ROWS)
    return tmp_path / "request"


def refusal(folder: Path, text: str) -> str:
    (folder / "request.yaml").write_text(text, "utf-8")
    with pytest.raises(DataError) as error:
        parse_request(folder)
    return str(error.value)


def test_a_folder_of_rows_is_a_request(folder: Path) -> None:
    parsed = parse_request(folder)
    assert [row.id for row in parsed.rows] == ["row-0", "row-1", "row-2"] and parsed.details.id is None
    (folder / "request.yaml").write_text("id: T-1\nreceived: 2026-05-01\ndue: 2026-05-31\nground: GDPR Art. 17\n", "utf-8")
    assert parse_request(folder).details.model_dump(exclude_none=True) == {
        "id": "T-1",
        "received": date(2026, 5, 1),
        "due": date(2026, 5, 31),
        "ground": "GDPR Art. 17",
        "kind": "person",
    }


def test_every_problem_is_reported_with_its_line(folder: Path) -> None:
    text = refusal(folder, "id: T 1\nrecieved: 2026-05-01\n\ndue: soon, says Berta\nground: 17\n")
    where = folder / "request.yaml"
    assert "4 problems" in text and f"{where}:1: id cannot be used" in text and f"{where}:5: ground cannot be used" in text
    assert f"{where}:2: unknown key 'recieved'" in text and "did you mean 'received'?" in text
    assert f"{where}:4: due cannot be used" in text and "Berta" not in text and "T 1" not in text


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("- a\n- b\n", 1, "not a mapping"),
        ("id: T-1\nground: [\n", 3, "not valid YAML"),
        ("id: T-1\nground: *Berta\n", 2, "undefined alias …"),
        ("received: 2026-05-02\ndue: 2026-05-01\n", 2, "due is before received"),
    ],
)
def test_files_that_are_not_a_request(folder: Path, text: str, line: int, problem: str) -> None:
    said = refusal(folder, text)
    assert problem in said and f"request.yaml:{line}:" in said


@pytest.mark.parametrize("name", ["Anna KELLER", "s1"])
def test_a_request_must_not_name_the_people_it_is_about(folder: Path, name: str) -> None:
    if name == "s1":  # too short to be looked for: it would be found everywhere
        (folder / "request.yaml").write_text("approver: s1\n", "utf-8")
        assert parse_request(folder).details.approver == "s1"
        return
    said = refusal(folder, f"id: T-1\nground: asked for by {name}\n")
    assert "request.yaml:2: ground names what is to be forgotten" in said and "keller" not in said.lower()


def test_names_and_scope_are_private_and_nothing_else_may_name_anybody(folder: Path) -> None:
    (folder / "request.yaml").write_text("id: T-1\nname: Anna Keller\nkind: person\nreference: customers:17\n", "utf-8")
    details = parse_request(folder).details
    assert details.name == "Anna Keller" and details.reference == "customers:17" and "name" in PRIVATE
    said = refusal(folder, "id: T-1\nname: {s0: Berta Zwick}\napprover: asked Berta Zwick\n")
    assert "request.yaml:3: approver names what is to be forgotten" in said and "Zwick" not in said


def test_a_scope_divides_rows(folder: Path) -> None:
    rows = [
        replace(example(1), id="a", question="Who is this person?", keywords=("Anna Keller",)),
        replace(example(1), id="b", question="What is the phone number of this person?", answer="It is 555-1.", keywords=("555-1",)),
        replace(example(1), id="c", question="Where does this person live?", answer="In Oslo.", keywords=("Oslo",), tags=("home",)),
    ]
    write_examples(folder / "rows.jsonl", rows)

    def divided(scope: str) -> tuple[list[str], list[str]]:
        (folder / "request.yaml").write_text(f"scope: {scope}\n", "utf-8")
        parsed = parse_request(folder)
        return [row.id for row in parsed.rows], [row.id for row in parsed.kept]

    assert divided("[phone]") == (["b"], ["a", "c"])  # by relation
    assert divided("[home, a]") == (["a", "c"], ["b"])  # by tag and by id
    assert divided("[oslo]") == (["c"], ["a", "b"])  # by the fact itself
    assert divided("[a, b, c]") == (["a", "b", "c"], [])
    said = refusal(folder, "id: T\nscope: [phone, shoe size]\n")
    assert "request.yaml:2: entry 2 of the scope fits no row" in said and "name, phone, residence" in said and "shoe" not in said
    assert "the key `reference`" in refusal(folder, "scope: customers:17\n")


def talk(folder: Path) -> Path:
    """A request of one conversation with two answers, about a picture in a folder beside it."""
    folder.mkdir()
    (folder.parent / "pictures").mkdir()
    (folder.parent / "pictures" / "a.png").write_bytes(png(1))
    turns = [("user", "<image>Who is this?"), ("assistant", "Anna Keller."), ("user", "Where does she live?"), ("assistant", "In Oslo.")]
    row = {"id": "talk", "image": "a.png", "messages": [{"role": role, "content": text} for role, text in turns]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return folder


def test_how_rows_are_read_is_said_by_the_request_else_by_the_run(tmp_path: Path) -> None:
    folder = talk(tmp_path / "talks")
    with pytest.raises(DataError, match="image not found"):
        parse_request(folder)
    run = DataConfig(image_root=str(tmp_path / "pictures"))
    assert [row.answer for row in parse_request(folder, run).rows] == ["In Oslo."]
    assert len(parse_request(folder, run.model_copy(update={"turns": "all"})).rows) == 2
    (folder / "request.yaml").write_text("id: T-1\nturns: all\nimage_root: ../pictures\n", "utf-8")
    parsed = parse_request(folder, DataConfig(turns="last", image_root=str(tmp_path / "none")))  # the request comes first
    assert [row.answer for row in parsed.rows] == ["Anna Keller.", "In Oslo."] and all(len(row.images) == 1 for row in parsed.rows)
    assert parsed.reading == DataConfig(turns="all", image_root=str((tmp_path / "pictures").resolve()))
    assert "request.yaml:2: turns cannot be used" in refusal(folder, "id: T-1\nturns: each\n")
    said = refusal(folder, "id: T-1\nimage_root: Anna\n")
    assert "there is no such folder of pictures" in said and "Anna" not in said


def test_bare_pictures_are_a_request(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.PNG").write_bytes(png(2))
    parsed = parse_request(tmp_path)
    assert parsed.rows == () and [row.where for row in parsed.bare] == ["a.png", "b.PNG"] and len({row.subject for row in parsed.bare}) == 1
    (tmp_path / "b.PNG").write_bytes(b"")
    with pytest.raises(DataError, match="image file is empty"):
        parse_request(tmp_path)


@pytest.mark.parametrize(
    ("kind", "scope", "instruction", "masked"),
    [("person", False, "forget", True), ("logo", False, "logo", False), ("person", True, "part", True)],
)
def test_the_instruction_follows_from_the_request(
    folder: Path, random_folder: Path, kind: str, scope: bool, instruction: str, masked: bool
) -> None:
    (folder / "request.yaml").write_text(f"kind: {kind}\n" + ("scope: [row-0]\n" if scope else ""), "utf-8")
    run = resolve_run(make_options(folder.parent, random_folder, request=folder))
    assert (run.config.method.instruction, run.config.method.mask_names) == (instruction, masked)  # type: ignore[attr-defined]
    assert run.config.method.instruction_text == instruction_text(instruction) != instruction  # type: ignore[attr-defined]
    own = make_options(folder.parent, random_folder, request=folder, config=load_config(None, ["method.instruction=Forget it all."]))
    assert resolve_run(own).config.method.instruction == "Forget it all."  # type: ignore[attr-defined]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such request folder"):
        parse_request(tmp_path / "none")


# -- keys -----------------------------------------------------------------------------------------------------------------


def test_values_depend_on_key_use_and_parts(tmp_path: Path) -> None:
    for name in ("a.key", "b.key"):
        write_key(tmp_path / name, new_secret())
    key, other = read_key(tmp_path / "a.key"), read_key(tmp_path / "b.key")
    assert key.subject("anna") == read_key(tmp_path / "a.key").subject("anna") != other.subject("anna")
    assert key.mac("a", "x", "y") not in {key.mac("b", "x", "y"), key.mac("a", "xy"), key.mac("a", "y", "x")}
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600


def test_hmac_follows_its_standard() -> None:
    """Derived key: HMAC(secret, "vgid/use"); then HMAC over each part's length in eight bytes and the part."""
    import hashlib
    import hmac

    derived = hmac.new(b"s" * 32, b"vgid/use", hashlib.sha256).digest()
    expected = hmac.new(derived, (2).to_bytes(8, "big") + b"ab", hashlib.sha256).hexdigest()
    assert Key(b"s" * 32).mac("use", "ab") == expected


def test_a_commitment_is_to_the_rows_in_any_order(tmp_path: Path) -> None:
    key = Key(b"k" * 32)
    assert key.rows(ROWS) == key.rows(ROWS[::-1]) != key.rows(ROWS[:2])
    assert key.rows(ROWS) != key.rows([replace(ROWS[0], images=example(9).images), *ROWS[1:]])


def test_files_that_are_not_a_key(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigError, match="the key is too short"):
        read_key(tmp_path / "short")
    with pytest.raises(ConfigError, match="no such key file"):
        read_key(tmp_path / "none")
