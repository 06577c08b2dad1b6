"""The record: its schema is the published one, and any altered file, record or result is found."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vgid.commands import app
from vgid.errors import ConfigError, DataError, RunError
from vgid.outcome import Outcome
from vgid.report.record import card_text, render_record
from vgid.requests.build_record import conclude, whole_outcome
from vgid.requests.files import sha256
from vgid.requests.forget import ForgetResult
from vgid.requests.keys import Key, read_key
from vgid.requests.manifest import MEANING, verify_record, write_manifest
from vgid.requests.next_steps import next_steps
from vgid.requests.record import Record, Verification, json_schema, published_schema, read_record
from vgid.requests.resolved import resolve_run

from .runs import make_options


def test_the_published_schema_is_that_of_the_model() -> None:
    assert json.loads(published_schema()) == json_schema()
    assert json_schema()["$id"] == "urn:vgid:record:1" and CliRunner().invoke(app, ["record", "schema"]).stdout == published_schema()


def test_a_record_is_read_back_as_it_was_written(honoured: tuple[Path, ForgetResult], tmp_path: Path) -> None:
    path = honoured[0] / "out" / "record.json"
    assert read_record(path).as_json() == json.loads(path.read_text("utf-8")) == honoured[1].record
    content = json.loads(path.read_text("utf-8")) | {"approved": "by Berta"}
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"(?s)the record cannot be read.*approved") as error:
        read_record(tmp_path / "record.json")
    assert "Berta" not in str(error.value)


def test_an_intact_run(honoured: tuple[Path, ForgetResult]) -> None:
    root, done = honoured
    found = verify_record(root / "out", read_key(root / "out.key"), done.sha256)
    assert found.problems == () and found.keyed and found.record == sha256(root / "out" / "record.json")
    assert found.files == len(done.record["model"]["after"]["files"]) + len(done.record["artefacts"]) + 2


def test_the_packages_of_the_environment_are_listed(honoured: tuple[Path, ForgetResult]) -> None:
    root, done = honoured
    file = root / "out" / "checks" / "environment.cdx.json"
    assert "checks/environment.cdx.json" in {each["path"] for each in done.record["artefacts"]}
    listed = json.loads(file.read_text("utf-8"))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6") and str(root) not in file.read_text("utf-8")
    packages = {each["name"]: each for each in listed["components"]}
    for name in ("torch", "transformers", "huggingface-hub"):
        installed = version(name)
        assert packages[name]["version"] == installed and packages[name]["purl"] == f"pkg:pypi/{name}@{installed.replace('+', '%2B')}"
    required = {each["ref"]: each["dependsOn"] for each in listed["dependencies"]}
    assert {packages["torch"]["purl"], packages["peft"]["purl"]} <= set(required[f"pkg:pypi/vgid@{version('vgid')}"])
    assert packages["huggingface-hub"]["purl"] in required[packages["transformers"]["purl"]]
    assert len(set(required)) == len(listed["dependencies"]) == len(packages)  # with vgid, and without Python


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("merged/model.safetensors", flip, "altered"),
        ("merged/README.md", flip, "altered"),
        ("audit/audit.json", flip, "altered"),
        ("evaluation/results.json", Path.unlink, "missing"),
        ("checks/preflight.json", flip, "altered"),
        ("checks/environment.cdx.json", flip, "altered"),
        ("record.html", flip, "altered"),
        ("record.html", Path.unlink, "missing"),
        ("merged/modeling.py", Path.touch, "not in the record"),
    ],
)
def test_whatever_is_altered_is_found(copied: Path, name: str, change: Callable[[Path], Any], problem: str) -> None:
    change(copied / "out" / name)
    assert verify_record(copied / "out", None).problems == (f"{name}: {problem}",)


def better(out: Path) -> None:
    """A result in the record made better than it was."""
    content = json.loads((out / "record.json").read_text("utf-8"))
    content["conclusion"]["status"] = "pass"
    (out / "record.json").write_text(json.dumps(content), "utf-8")


def test_an_altered_result_in_the_record(copied: Path) -> None:
    better(copied / "out")
    assert "record.json: altered" in verify_record(copied / "out", None).problems


def test_a_manifest_made_again_is_found_only_by_the_key_or_a_noted_digest(copied: Path, honoured: tuple[Path, ForgetResult]) -> None:
    better(copied / "out")
    write_manifest(copied / "out", Key(b"0" * 32))
    assert verify_record(copied / "out", None).problems == ()  # which is what is said of digests alone
    (problem,) = verify_record(copied / "out", read_key(copied / "out.key")).problems
    assert "the HMAC does not fit the key" in problem
    assert verify_record(copied / "out", None, honoured[1].sha256).problems == ("record.json: its SHA-256 is not the one given",)


def test_a_record_that_points_outside_its_folder(copied: Path) -> None:
    content = json.loads((copied / "out" / "record.json").read_text("utf-8"))
    content["artefacts"][0]["path"] = "../retain.jsonl"
    (copied / "out" / "record.json").write_text(json.dumps(content), "utf-8")
    assert "../retain.jsonl: lies outside the folder" in verify_record(copied / "out", None).problems


def test_the_command(copied: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["record", "verify", str(copied / "out"), *map(str, arguments)])

    plain, keyed = run("--json"), run("--key", copied / "out.key")
    assert plain.exit_code == keyed.exit_code == 0 and json.loads(plain.stdout)["means"] == MEANING["plain"]
    assert MEANING["keyed"] in " ".join(keyed.stdout.split())
    flip(copied / "out" / "merged" / "config.json")
    failed = run("--json")
    assert failed.exit_code == 1 and json.loads(failed.stdout)["problems"] == ["merged/config.json: altered"]


def test_no_manifest(copied: Path) -> None:
    (copied / "out" / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="does not hold an object"):
        verify_record(copied / "out", None)
    (copied / "out" / "manifest.json").unlink()
    with pytest.raises(DataError, match="there is no manifest"):
        verify_record(copied / "out", None)


def test_it_holds_after_a_purge_and_what_remains_is_listed(copied: Path) -> None:
    done = json.loads(CliRunner().invoke(app, ["purge", str(copied / "out"), "--json"]).stdout)
    assert [name for name, _ in done["removed"]] == ["work"] and not (copied / "out" / "work").exists()
    assert [name for name, _ in done["remains"]] == sorted(path.name for path in (copied / "out").iterdir())
    assert verify_record(copied / "out", read_key(copied / "out.key")).problems == ()


def test_the_page_escapes_what_it_shows(honoured: tuple[Path, ForgetResult]) -> None:
    record = json.loads(json.dumps(honoured[1].record))
    record["request"]["approver"] = "<script>alert(1)</script>"
    page = render_record(record)
    assert page.count("<script") == 1 and "&lt;script&gt;alert(1)" in page and "T-1" in page
    assert "forget" in record["procedure"]["curves"] and "<h3>Loss</h3>" in page and page.count("<svg") >= 1
    with pytest.raises(DataError, match="this record cannot be shown"):
        render_record({"schema": "vgid.record/9"})
    assert Record(**record).request.approver == record["request"]["approver"]


# -- signatures -----------------------------------------------------------------------------------------------------------


def test_signing_without_the_package_says_how_to_get_it(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vgid.requests.signing import sign_record

    monkeypatch.setattr("vgid.requests.signing.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"(?s)not installed.*pip install 'vgid\[sign\]'"):
        sign_record(copied / "out", copied / "out.key")


def test_a_signature_holds_until_something_is_altered(copied: Path) -> None:
    pytest.importorskip("model_signing")
    from vgid.requests.signing import check_signature, sign_record

    out, private, public = copied / "out", copied / "private.pem", copied / "public.pem"
    subprocess.run([sys.executable, "-c", MAKE_KEYS, private, public], check=True)
    assert check_signature(out, public) == "record.sig: missing"
    sign_record(out, private)
    shutil.rmtree(out / "work")
    assert check_signature(out, public) is None and verify_record(out, None).problems == ()
    flip(out / "merged" / "model.safetensors")
    assert "not valid" in str(check_signature(out, public))
    with pytest.raises(RunError, match=r"(?s)not intact, so it is not signed.*model.safetensors: altered"):
        sign_record(out, private)


MAKE_KEYS = """
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
open(sys.argv[1], "wb").write(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
open(sys.argv[2], "wb").write(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
"""


def test_a_model_that_still_answers_has_failed_whatever_the_audit_found(honoured: tuple[Path, ForgetResult]) -> None:
    content = honoured[1].record["verification"] | {"status": "pass", "reasons": []}
    answered = {"known": 8, "held_out_known": 4, "allowed": 0.05, "retained": None, "kept_known": 0, "kept_answered": None}
    gone = Verification(**content | {"outcome": answered | {"status": "forgotten", "still_answered": 0.0, "held_out_answered": None}})
    left = Verification(**content | {"outcome": answered | {"status": "not forgotten", "still_answered": 0.5, "held_out_answered": 0.25}})
    assert conclude(gone, None, (), None, neutral=False).status == "pass"
    found = conclude(left, None, ("Train for longer.",), None, neutral=False)
    assert found.status == "fail" and found.next_steps == ["Train for longer."]
    assert "not forgotten. 50% of the 8 known rows are still answered, and 25% of 4 held-out rows" in found.statement
    run = resolve_run(make_options(honoured[0], Path(honoured[1].record["model"]["before"]["name"])))
    further, longer, higher, more = next_steps(run, left, 1e-3)
    assert "--continue RUN" in further and "training.steps=9" in longer and "learning_rate=0.003" in higher and "rows" in more
    assert next_steps(run, gone, 1e-3) == []


@pytest.mark.parametrize(("lost", "status"), [(None, "forgotten"), (0.1, "forgotten"), (0.11, "damaged")])
def test_a_request_that_lost_more_than_allowed_is_damaged(lost: float | None, status: str) -> None:
    """A request's training run asks nothing, so its own outcome is `not examined`; what it lost of held-out rows still counts."""
    trained = replace(Outcome("not examined"), aside_lost=lost, allowed_loss=0.1).as_json()
    assert whole_outcome(Outcome("forgotten", known=8, still_answered=0.0).as_json(), trained).status == status


def test_a_request_that_lost_a_subject_of_the_retain_set_is_damaged(honoured: tuple[Path, ForgetResult]) -> None:
    aside = {"aside_given": 60, "aside_replayed": 40, "aside_lost": 0.01, "allowed_loss": 0.1}
    lost = replace(Outcome("not examined"), **aside, subjects=23, subjects_lost=2).as_json()
    found = whole_outcome(Outcome("forgotten", known=8, still_answered=0.0).as_json(), lost)
    assert found.status == "damaged"
    verification = Verification.model_validate({**honoured[1].record["verification"], "outcome": found})
    assert "1 of 100 answers that were held out and never trained on (allowed: 10%), and 2 of 23 subjects of the retain set." in (
        conclude(verification, None, (), None, neutral=False).statement
    )


@pytest.mark.parametrize("audit", ["pass", "fail"])
def test_the_page_of_a_damaged_model_says_why_it_failed(honoured: tuple[Path, ForgetResult], audit: str) -> None:
    """Where the tests of removal were passed, nothing can still be got out of it."""
    record = json.loads(json.dumps(honoured[1].record))
    lost = {"status": "damaged", "aside_given": 0, "aside_replayed": 48, "aside_lost": 5 / 48, "allowed_loss": 0.1}
    record["verification"]["outcome"] |= lost
    record["verification"]["status"], record["conclusion"]["status"] = audit, "fail"
    page = render_record(record)
    assert ("<h1>Failed: too much else was lost</h1>" in page) == (audit == "pass")
    assert ("can still be got out" in page) == (audit == "fail")
    assert "t lost 5 of 48 answers that were held out and never trained on (allowed: 10%)." in page


def test_the_card_of_a_damaged_model_says_so_whatever_the_audit_found(honoured: tuple[Path, ForgetResult]) -> None:
    out = honoured[0] / "out"
    audit, results = (json.loads((out / name).read_text()) for name in ("audit/audit.json", "evaluation/results.json"))
    audit["verdict"] = audit["verdict"] | {"status": "pass", "reasons": []}
    trained = replace(Outcome("not examined"), aside_replayed=8, aside_lost=0.25, allowed_loss=0.1).as_json()
    damaged = whole_outcome(Outcome("forgotten", known=8, still_answered=0.0).as_json(), trained).model_dump()
    card = card_text(audit, {**results, "outcome": damaged}, "vgid", 2)
    assert "Result: **damaged**. Asked plainly, 0% of the known rows are answered. Lost beside it: " in card
    assert "2 of 8 answers that were held out and never trained on (allowed: 10%)" in card and "This is not evidence of removal." in card
    assert "Result:" not in card_text(audit, {**results, "outcome": damaged | {"status": "forgotten"}}, "vgid", 2)
