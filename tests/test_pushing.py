"""`vgid export --push`, to a server on this machine that speaks the hub's API."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.hub import Hub
from vgid.commands import app
from vgid.errors import ConfigError, ModelError, RunError
from vgid.model_card import write_card
from vgid.models.export import FAILED
from vgid.pushing import check_push, files_to_push, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories, whose users `writer` and `reader` have a token of the same name each."""
    with Hub() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its storage is a service of its own
        monkeypatch.setenv("HF_TOKEN", "writer")
        yield served


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model card and two other files."""
    folder = tmp_path / "model"
    write_card(folder, "owner/base", "vgid", [], rows={"forget": 8})
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    return folder


def test_the_command_uploads_what_it_wrote(hub: Hub, random_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Weights go where large files go, and the rest into the commit itself; what lies on the hub afterwards are the export's bytes."""
    merged, out = tmp_path / "merged", tmp_path / "out"
    shutil.copytree(random_folder, merged)
    write_card(merged, "owner/base", "vgid", [], rows={"forget": 8})
    command = ["export", "--model", str(merged), "--out", str(out), "--push", "owner/name"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and f"{hub.url}/owner/name/commit/" in done.output.replace("\n", "")
    repository = hub.repositories["owner/name"]
    assert repository.private and repository.commits == ["Upload the model"]
    assert repository.files == {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}
    assert set(repository.large) == {"model.safetensors"}
    (tmp_path / "received.safetensors").write_bytes(repository.files["model.safetensors"])
    assert load_file(tmp_path / "received.safetensors").keys() == load_file(random_folder / "model.safetensors").keys()


def test_a_repository_that_exists(hub: Hub, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Equal names are replaced in a new commit, other files stay, and a public repository is said to be one."""
    first = push(model, "owner/name")
    assert (first["existed"], first["private"], first["files"]) == (False, True, ["README.md", "config.json", "model.safetensors"])
    hub.repositories["owner/name"].private = False
    hub.repositories["owner/name"].files["notes.txt"] = b"theirs"
    (model / "model.safetensors").write_bytes(b"others" * 100)
    again = push(model, "owner/name")
    assert (again["existed"], again["private"]) == (True, False) and "is public" in caplog.text
    assert len(hub.repositories["owner/name"].commits) == 2
    assert hub.repositories["owner/name"].files["model.safetensors"] == b"others" * 100
    assert hub.repositories["owner/name"].files["notes.txt"] == b"theirs"


def test_weights_of_another_model_are_never_left_beside_the_pushed_ones(hub: Hub, model: Path) -> None:
    push(model, "owner/name")
    hub.repositories["owner/name"].files["model-00001-of-00002.safetensors"] = b"they know"
    with pytest.raises(ModelError, match="holds weights that this model would not replace"):
        push(model, "owner/name")
    assert len(hub.repositories["owner/name"].commits) == 1


@pytest.mark.parametrize(("token", "problem"), [("stranger", "does not know the token"), ("reader", "may only read")])
def test_a_token_is_tried_before_any_work(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, problem: str) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{token}\n")  # as read from a file
    done = CliRunner().invoke(app, ["export", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--push", "owner/name"])
    assert isinstance(done.exception, ConfigError) and problem in str(done.exception) and token not in str(done.exception)


def test_a_hub_that_refuses(hub: Hub, model: Path) -> None:
    """A namespace of others, a card that is not valid, and an upload that breaks off are one error each."""
    with pytest.raises(RunError, match=r"(?s)refuses the upload.*status 403"):
        push(model, "others/name")
    hub.card_problem = "license must be known"
    with pytest.raises(RunError, match=r"(?s)the upload failed.*license must be known"):
        push(model, "owner/name")
    hub.card_problem, hub.broken = "", True
    with pytest.raises(RunError, match=r"(?s)the upload failed.*model.safetensors"):
        push(model, "owner/name")
    assert hub.repositories["owner/name"].commits == []
    hub.broken = False
    push(model, "owner/name")
    assert hashlib.sha256(b"weights" * 100).hexdigest() in hub.objects


def test_which_files_are_pushed(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", ".vgid-run", ".gitattributes"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ModelError, match="there is no model card"):
        files_to_push(tmp_path)
    (tmp_path / "README.md").write_text("")
    assert files_to_push(tmp_path) == ["README.md", "config.json", "model.safetensors"]
    (tmp_path / "Anna.JPG").write_text("")
    with pytest.raises(ModelError, match="holds data or pictures") as error:
        files_to_push(tmp_path)
    assert "Anna" not in str(error.value)
    (tmp_path / FAILED).write_text("{}")
    with pytest.raises(ModelError, match="does not answer as the trained model"):
        files_to_push(tmp_path)


def test_what_a_push_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for repository, problem in (("a/b/c", "no such repository"), ("name", "no such repository"), ("owner/name", "no HF_TOKEN")):
        with pytest.raises(ConfigError, match=problem):
            check_push(repository)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="switched off"):
        check_push("owner/name")


def test_a_push_without_a_network_is_one_error_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "README.md").write_text("# A model\n")
    with pytest.raises(RunError, match="the hub cannot be reached") as error:
        push(tmp_path, "owner/name")
    assert "hf_secret" not in str(error.value)
