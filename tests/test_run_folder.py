"""A run removes what it wrote and nothing else, and old results stay until the new ones are whole."""

import os
import string
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgid.artifacts import whole_folder, write_text_atomic
from vgid.errors import OutputError
from vgid.requests.purge import TEMPORARY, purge
from vgid.run_folder import ACTIVE, MARK, PREVIOUS, check_output, discard, note, output_folder, unfinished_files, written_files


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder with what they hold, or where a link leads."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()}
    return {name: str(path.readlink()) if path.is_symlink() else path.read_text("utf-8") for name, path in files.items()}


def make_run(out: Path, names: tuple[str, ...] = ("results.json", "merged/config.json")) -> None:
    with output_folder(out):
        for name in names:
            write_text_atomic(out / name, "old")


def test_the_journal_lists_what_was_written_by_all_ways(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out):
        write_text_atomic(out / "a.json", "1")
        write_text_atomic(out / "a.json", "2")
        with whole_folder(out / "merged") as folder:
            write_text_atomic(folder / "deep" / "b.txt", "b")
        note(out / "logs", tree=True)
        (out / "logs").mkdir()
        (out / "logs" / "events").touch()
        with output_folder(out / "step"):
            write_text_atomic(out / "step" / "c.json", "c")
    write_text_atomic(out / "later.txt", "not by the run")
    (out / "logs" / "notes").touch()
    found = [path.relative_to(out).as_posix() for path in written_files(out)]
    assert found == [MARK, "a.json", "logs/events", "merged/deep/b.txt", f"step/{MARK}", "step/c.json"]
    assert unfinished_files(out) == [] and not os.environ.get(ACTIVE, "[]").strip("[]")


def test_files_of_others_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_run(out)
    (out / ".git").mkdir()
    for name in ("notes.txt", ".git/HEAD", "merged/own.txt"):
        (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(OutputError, match=r"found: \.git/HEAD, merged/own\.txt, notes\.txt"):
        check_output(out, overwrite=True)
    assert contents(out) == before


def test_a_later_run_inside_a_run_is_not_part_of_it(tmp_path: Path) -> None:
    make_run(tmp_path / "out")
    make_run(tmp_path / "out" / "audit")
    with pytest.raises(OutputError, match=r"audit/results\.json"):
        check_output(tmp_path / "out", overwrite=True)


def test_inputs_in_the_output_are_an_error_also_through_links(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_run(out)
    (tmp_path / "link").symlink_to(out / "merged")
    (tmp_path / "other").symlink_to(out)
    for given_as in (out, out / "merged", tmp_path / "link", tmp_path / "other" / "results.json"):
        with pytest.raises(OutputError, match="an input of the run lies in the output folder"):
            check_output(out, overwrite=True, inputs=[None, [("owner/name", None)], given_as])
    check_output(out, overwrite=True, inputs=[tmp_path, "owner/name", {"a row": 1}])


def test_a_folder_that_cannot_be_made_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "circle"):
        with pytest.raises(OutputError, match="cannot be made"):
            check_output(out, overwrite=True, inputs=[tmp_path / "circle" / "input"])
    check_output(tmp_path / "new" / "folder", overwrite=False)
    assert not (tmp_path / "new").exists()


def test_nothing_is_replaced_resumed_or_purged_in_a_folder_of_a_version_without_journals(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text("This folder was made by vgid and may be replaced by `--overwrite`.\n")
    write_text_atomic(tmp_path / "checkpoint" / "state.safetensors", "old")
    before = contents(tmp_path)
    for change in (partial(check_output, overwrite=True), partial(check_output, overwrite=False, resume=True), purge):
        with pytest.raises(OutputError, match="does not say which of its files vgid wrote"):
            change(tmp_path)
    assert contents(tmp_path) == before


def test_a_line_of_the_journal_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    make_run(tmp_path / "out")
    with (tmp_path / "out" / MARK).open("a") as file:
        file.write('\n+ "half a li')
    with output_folder(tmp_path / "out", keep=True):
        write_text_atomic(tmp_path / "out" / "next.json", "new")
    assert tmp_path / "out" / "next.json" in written_files(tmp_path / "out")


def test_a_folder_that_another_process_renames_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with output_folder(out):
        write_text_atomic(out / "a.json", "1")
        (out / ".merged.x").mkdir()
        is_symlink = Path.is_symlink

        def renamed_after_it_was_listed(path: Path) -> bool:
            if path.name == ".merged.x" and path.exists():
                path.rename(out / "merged")
                return False
            return is_symlink(path)

        is_dir = Path.is_dir
        monkeypatch.setattr(Path, "is_symlink", renamed_after_it_was_listed)
        monkeypatch.setattr(Path, "is_dir", lambda path: path.name == ".merged.x" or is_dir(path))
        assert [path.name for path in written_files(out)] == [MARK, "a.json"]


def test_old_results_come_back_after_a_failure_and_go_after_a_success(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_run(out)
    before = contents(out)
    with pytest.raises(RuntimeError), output_folder(out):
        write_text_atomic(out / "results.json", "new")
        write_text_atomic(out / "report.html", "new")
        assert contents(out / PREVIOUS)["results.json"] == "old"
        raise RuntimeError
    assert contents(out) == before
    with output_folder(out):
        write_text_atomic(out / "results.json", "new")
    assert {name: text for name, text in contents(out).items() if name != MARK} == {"results.json": "new"}


def test_a_failed_run_leaves_no_folder_and_one_that_goes_on_keeps_both(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(RuntimeError), output_folder(out):
        write_text_atomic(out / "a.json", "half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    make_run(out)
    with pytest.raises(RuntimeError), output_folder(out, goes_on=lambda: True):
        write_text_atomic(out / "state.json", "half")
        raise RuntimeError
    with output_folder(out, keep=True):
        assert contents(out)["state.json"] == "half" and contents(out / PREVIOUS)["results.json"] == "old"
        write_text_atomic(out / "results.json", "new")
    assert sorted(contents(out)) == [MARK, "results.json", "state.json"]


def test_new_results_stay_where_old_ones_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    make_run(out)

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(OutputError, match="cannot remove it: Permission denied"), output_folder(out):
        write_text_atomic(out / "results.json", "new")
        monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.undo()
    assert contents(out)["results.json"] == "new" and contents(out / PREVIOUS)["results.json"] == "old"
    with output_folder(out):
        write_text_atomic(out / "results.json", "newer")
    assert sorted(contents(out)) == [MARK, "results.json"]


@pytest.mark.parametrize("kept", range(1, 4))
def test_a_process_killed_while_it_removed_files_leaves_a_journal_of_the_others(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    make_run(out)
    unlink, left = Path.unlink, [3 - kept]  # two files and the journal

    def killed(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with pytest.raises(KeyboardInterrupt), output_folder(out):
        write_text_atomic(out / "results.json", "new")
        monkeypatch.setattr(Path, "unlink", killed)
    monkeypatch.undo()
    assert len(written_files(out / PREVIOUS)) == kept
    with output_folder(out, keep=True):
        pass
    assert not (out / PREVIOUS).exists()


@pytest.mark.parametrize("moved", range(4))
def test_a_process_killed_while_it_set_results_aside_loses_nothing(tmp_path: Path, moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    make_run(out)
    replace, left = os.replace, [moved]  # two files, then the journal in the old place and the new one

    def killed(*paths: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), output_folder(out):
        pass
    monkeypatch.undo()
    check_output(out, overwrite=True)
    with pytest.raises(RuntimeError), output_folder(out):
        raise RuntimeError
    assert {name: text for name, text in contents(out).items() if name != MARK} == {"results.json": "old", "merged/config.json": "old"}


def test_folders_that_a_killed_process_had_made_and_not_filled_go_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out):
        (out / "notes").mkdir()
    for name in ("merged", ".merged.k1ll3d00", ".adapter.k1ll3d00", "merged2"):
        (out / name).mkdir()
    (out / ".merged.mine0000").mkdir()
    (out / ".merged.mine0000" / "note.txt").write_text("mine")
    discard(out / "merged")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [".adapter.k1ll3d00", ".merged.mine0000", "merged2", "notes"]


def test_a_file_that_appears_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="a file that vgid did not write is in the way"), output_folder(out, goes_on=lambda: True):
        (out / "results.json").write_text("mine")
        write_text_atomic(out / "results.json", "new")
    assert contents(out)["results.json"] == "mine"


@pytest.mark.parametrize("line", ["../secret", "/etc/passwd", "link/secret", "..", "", "a\0b"])
def test_a_journal_that_was_tampered_with_leads_nowhere(tmp_path: Path, line: str) -> None:
    import json

    out = tmp_path / "out"
    make_run(out)
    (tmp_path / "secret").write_text("mine")
    (out / "link").symlink_to(tmp_path)
    with (out / MARK).open("a") as file:
        file.write(f'\n+ {json.dumps(line)}\n+ "half a li')
    with suppress(OutputError):
        check_output(out, overwrite=True)
        with output_folder(out):
            pass
    discard(out / "link")
    discard(out / "merged")
    assert (tmp_path / "secret").read_text() == "mine" and not (out / "merged").exists()


NAMES = st.text(string.ascii_lowercase[:3] + ".-é", min_size=1, max_size=3).filter(lambda name: name.strip("."))
TREES = st.dictionaries(
    st.lists(st.sampled_from([*TEMPORARY, "merged", "results.json"]) | NAMES, min_size=1, max_size=3).map("/".join), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(written=TREES, placed=TREES, fails=st.booleans(), data=st.data())
def test_nothing_of_others_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, bool], placed: dict[str, bool], fails: bool, data: st.DataObject
) -> None:
    """Random files of a run, and random files and links of others among them; then every way to remove or replace results."""
    out = tmp_path_factory.mktemp("tree") / "out"
    with output_folder(out, goes_on=lambda: True):
        for name, finished in written.items():
            with suppress(OutputError):
                write_text_atomic(out / name, "run") if finished else note(out / name)
    others: dict[str, str] = {}
    for name, link in placed.items():
        path = out / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            below_a_link = any(parent.is_symlink() for parent in path.parents)
            if not below_a_link and not os.path.lexists(path) and path not in written_files(out) and name not in written:
                path.symlink_to(out) if link else path.write_text("mine")
                others[name] = str(out) if link else "mine"
    ways = data.draw(st.lists(st.sampled_from(["overwrite", "keep", "purge", "discard"]), min_size=1, max_size=3))
    for way in ways:
        with suppress(OutputError, RuntimeError):
            if way == "purge":
                purge(out)
            elif way == "discard":
                with suppress(FileNotFoundError):
                    discard(out / data.draw(st.sampled_from(["merged", *written, *placed])))
            else:
                check_output(out, overwrite=way == "overwrite", resume=way == "keep")
                with output_folder(out, keep=way == "keep"):
                    write_text_atomic(out / "results.json", "new")
                    if fails:
                        raise RuntimeError
        assert {name: text for name, text in contents(out).items() if name in others} == others
