"""`vgid export --push`: a model's folder to a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgid.errors import ConfigError, ModelError, RunError, VgidError
from vgid.model_card import NAME as CARD
from vgid.models.export import FAILED

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
"""Name of the environment variable that holds the hub's token."""
DATA = (".jsonl", ".parquet", ".arrow", ".csv", ".tsv", ".gz", ".tar", ".zip", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".heic", ".tiff")
"""Endings of data and pictures: a checkpoint has none of these, and they may be what was forgotten."""
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".pt", ".pth")
"""Endings of weights, which loaders find by their names."""
log = logging.getLogger("vgid")


def check_push(repository: str) -> None:
    """Make sure, before any work, that a push can be tried: the hub is asked whose the token is, and whether it may write.

    Args:
        repository: the hub's `owner/name`.

    Raises:
        ConfigError: the name is not a repository's, the token is missing, not known or for reading only, or the hub is switched off.
        RunError: the hub cannot be reached.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
        named = "/" in repository
    except HFValidationError:
        named = False
    if not named:
        raise ConfigError("there can be no such repository", where="--push", expected="OWNER/NAME", got="another form")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("the hub is switched off", where="--push", got="HF_HUB_OFFLINE", fix="unset it")
    if not os.environ.get(TOKEN, "").strip():
        raise ConfigError("the hub asks for a token", where="--push", got=f"no {TOKEN}", fix=f"set {TOKEN} to a token that may write")
    with _reached(repository, "check the network, and HF_ENDPOINT if it is set"):
        try:
            role = _hub().whoami().get("auth", {}).get("accessToken", {}).get("role")
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in (401, 403):
                return  # a hub that does not tell; the push itself will
            raise ConfigError("the hub does not know the token", where=TOKEN, fix="make a token that may write, and set it") from error
    if role == "read":
        raise ConfigError("the token may only read", where=TOKEN, expected="a token that may write", got="a token for reading")


def _hub() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=os.environ[TOKEN].strip(), library_name="vgid")


@contextmanager
def _reached(repository: str, fix: str) -> Iterator[None]:
    """Turn what the hub's library raises where it cannot reach the hub, or where an upload breaks off, into one error."""
    from huggingface_hub.errors import HfHubHTTPError

    transport: type[Exception] = HfHubHTTPError.__bases__[0]  # the HTTP client differs between releases of the hub's library
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise RunError(
            "the hub refuses the upload", where=repository, got=f"status {status}", fix=f"check that {TOKEN} may write there"
        ) from error
    except (VgidError, KeyboardInterrupt):
        raise
    except (transport, OSError) as error:
        raise RunError("the hub cannot be reached", where=repository, got=type(error).__name__, fix=fix) from error
    except (ValueError, RuntimeError) as error:  # a card that the hub does not take; a file that did not arrive
        raise RunError("the upload failed", where=repository, got=" ".join(str(error).split())[:300], fix=fix) from error


def files_to_push(folder: Path) -> list[str]:
    """List the files of a model's folder that a push uploads: all of them but hidden ones, such as a run's journal.

    Args:
        folder: the folder of a merged model, or of an adapter.

    Returns:
        Their names, sorted.

    Raises:
        ModelError: the export was marked as failed, has no model card, or data or pictures lie in its folder.
    """
    if (folder / FAILED).exists():
        raise ModelError("the export does not answer as the trained model", where=folder, got=FAILED, fix="do not publish it")
    if not (folder / CARD).is_file():
        raise ModelError("there is no model card", where=folder, expected=CARD, fix="write one, or export the merged model of a run")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if data := sum(name.lower().endswith(DATA) for name in names):  # their names may be people's
        raise ModelError("the folder holds data or pictures", where=folder, got=f"{data} such files", fix="move them elsewhere")
    return names


def push(folder: Path, repository: str) -> dict[str, Any]:
    """Upload a model's folder as one commit; a repository that does not exist is made, and is private.

    Nothing in a repository that exists is deleted, so it must hold no weights but those that are replaced: loaders would take either.

    Args:
        folder: the folder.
        repository: the hub's `owner/name`.

    Returns:
        `repository`, `files`, the `url` of the commit, whether the repository `existed` before, and whether it is `private`.

    Raises:
        ConfigError: as `check_push`.
        ModelError: as `files_to_push`, or the repository holds other weights.
        RunError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import RepositoryNotFoundError

    check_push(repository)
    files, hub = files_to_push(folder), _hub()
    with _reached(repository, "the export is complete; give its folder as --model to push it again"):
        try:
            found = hub.model_info(repository)
        except RepositoryNotFoundError:
            found = None
            hub.create_repo(repository, private=True)
        if found is not None:
            _check_weights(repository, [each.rfilename for each in found.siblings or ()], files)
            if not found.private:
                log.warning("the repository %s is public", repository)
        additions = [CommitOperationAdd(name, folder / name) for name in files]
        commit = hub.create_commit(repository, additions, commit_message="Upload the model")
    return {
        "repository": repository,
        "files": files,
        "url": str(commit.commit_url),
        "existed": found is not None,
        "private": found is None or bool(found.private),
    }


def _check_weights(repository: str, there: Sequence[str], files: Sequence[str]) -> None:
    """Refuse a repository whose weights would lie beside the pushed ones.

    Raises:
        ModelError: there are such weights.
    """
    if other := [name for name in there if name.endswith(WEIGHTS) and name not in files]:
        raise ModelError(
            "the repository holds weights that this model would not replace, and loaders might take them",
            where=repository,
            got=f"{len(other)} such files, among them {other[0]}",
            fix="remove them there, or push to another repository",
        )
