"""Files are complete or absent."""

import json
import os
from pathlib import Path

import pytest

from vgid.artifacts import whole_folder, write_json_atomic, write_text_atomic
from vgid.errors import DataError, OutputError
from vgid.run_folder import check_output, output_folder


def test_text_is_written_as_utf8_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text_atomic(path, "old")
    write_text_atomic(path, "Zoë\r\n→")
    assert path.read_bytes() == "Zoë\r\n→".encode()
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OutputError, match="No space left on device"):
        write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write the file"):
        write_text_atomic(tmp_path / "file" / "a.txt", "text")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_permissions_follow_the_umask_and_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    old = os.umask(0o022)
    try:
        write_text_atomic(path, "text")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    write_text_atomic(path, "secret")
    assert path.stat().st_mode & 0o777 == 0o600


def test_json_keeps_the_order_of_keys_and_the_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"b": 1, "a": ["Zoë", None, 0.5]})
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert "Zoë" in path.read_text(encoding="utf-8")
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["b", "a"]


@pytest.mark.parametrize("obj", [{"loss": float("nan")}, [float("inf")], {"path": Path("x")}])
def test_json_refuses_what_is_not_json(tmp_path: Path, obj: object) -> None:
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_json_atomic(tmp_path / "a.json", obj)
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with whole_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "out").exists()
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out" / "file").exists() and (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(OutputError, match="the folder is not empty"), whole_folder(tmp_path / "out"):
        pass


def test_results_are_replaced_only_with_overwrite_and_only_after_the_check(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_output(out, overwrite=False)
    with output_folder(out):
        pass
    check_output(out, overwrite=False)  # a run that ended before it wrote anything is no obstacle
    with output_folder(out):
        write_text_atomic(out / "results.json", "{}")
    with pytest.raises(OutputError, match="the output folder is not empty"):
        check_output(out, overwrite=False)
    check_output(out, overwrite=True)
    assert (out / "results.json").exists()
    with output_folder(out):
        pass
    assert [path.name for path in out.iterdir()] == [".vgid-run"]
