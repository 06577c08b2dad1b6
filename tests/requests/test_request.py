"""Request folders: what is read, what is refused, and that error messages repeat nothing."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.conftest import example
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError
from vgid.requests.keys import Key, make_key, read_key
from vgid.requests.request import parse_request
from vgid.requests.resolved import policy_for

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


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such request folder"):
        parse_request(tmp_path / "none")


def test_the_policy_asks_for_no_more_people_than_there_are() -> None:
    many = [example(n) for n in range(9)]
    assert [policy_for(None, many[:people]).least_people for people in (1, 2, 3, 4, 5, 6, 9)] == [1, 1, 1, 2, 2, 3, 3]


# -- keys -----------------------------------------------------------------------------------------------------------------


def test_values_depend_on_key_use_and_parts(tmp_path: Path) -> None:
    key, other = make_key(tmp_path / "a.key"), make_key(tmp_path / "b.key")
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
