"""`vgid export --push`: a model's folder to a repository of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vgid.errors import ConfigError, ModelError, RunError
from vgid.model_card import NAME as CARD
from vgid.models.export import FAILED

TOKEN = "HF_TOKEN"
"""Name of the environment variable that holds the hub's token."""
DATA = (".jsonl", ".parquet", ".arrow", ".csv", ".tsv", ".gz", ".tar", ".zip", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".heic", ".tiff")
"""Endings of data and pictures: a checkpoint has none of these, and they may be what was forgotten."""


def check_push(repository: str) -> None:
    """Make sure, before any work, that a push can be tried.

    Args:
        repository: the hub's `owner/name`.

    Raises:
        ConfigError: the name is not a repository's, the token is missing, or the hub is switched off.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
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
    if not os.environ.get(TOKEN):
        raise ConfigError("the hub asks for a token", where="--push", got=f"no {TOKEN}", fix=f"set {TOKEN} to a token that may write")


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

    Args:
        folder: the folder.
        repository: the hub's `owner/name`.

    Returns:
        `repository`, `files`, and the `url` of the commit.

    Raises:
        ConfigError: as `check_push`.
        ModelError: as `files_to_push`.
        RunError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_push(repository)
    files = files_to_push(folder)
    transport: type[Exception] = HfHubHTTPError.__bases__[0]  # the HTTP client differs between releases of the hub's library
    hub = HfApi(token=os.environ[TOKEN], library_name="vgid")
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files, commit_message="Upload the model")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise RunError(
            "the hub refuses the upload", where=repository, got=f"status {status}", fix=f"check that {TOKEN} may write there"
        ) from error
    except (transport, OSError) as error:
        fix = "the export is complete; give its folder as --model to push it again"
        raise RunError("the hub cannot be reached", where=repository, got=type(error).__name__, fix=fix) from error
    return {"repository": repository, "files": files, "url": str(commit.commit_url)}
