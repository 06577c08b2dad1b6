"""Signatures over a run's folder by OpenSSF model-signing (extra `sign`), with the user's own key; nothing is sent anywhere.

A signature covers every file except those that `vgid purge` removes, so it stays valid after a purge.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vgid.errors import ConfigError, RunError
from vgid.requests.files import WORK
from vgid.requests.manifest import SIGNATURE, verify_record
from vgid.run_folder import MARK, note, noting


def sign_record(out: Path, private_key: Path) -> Path:
    """Sign a run's folder, after a check that nothing in it was altered.

    Args:
        out: the run's folder.
        private_key: an elliptic curve key in PEM.

    Returns:
        The path of the signature.

    Raises:
        ConfigError: model-signing is not installed, or there is no such key.
        RunError: a file was altered, or the key cannot be used.
    """
    _check(private_key)
    problems = verify_record(out, None).problems
    if problems:
        raise RunError("the record is not intact, so it is not signed", where=out, got="\n  ".join(["", *problems]))
    from model_signing import signing

    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(_hashing(out))
        with noting(out):
            note(out / SIGNATURE)
            config.sign(out, out / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        raise RunError("the folder cannot be signed", where=private_key, got=str(error), fix="give an elliptic curve key in PEM") from error
    return out / SIGNATURE


def check_signature(out: Path, public_key: Path) -> str | None:
    """Check the signature of a run's folder.

    Args:
        out: the run's folder.
        public_key: the signer's public key in PEM.

    Returns:
        What is wrong; None where the signature is valid.

    Raises:
        ConfigError: model-signing is not installed, or there is no such key.
    """
    _check(public_key)
    if not (out / SIGNATURE).is_file():
        return f"{SIGNATURE}: missing"
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(_hashing(out))
        config.verify(out, out / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        return f"{SIGNATURE}: not valid ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


def _check(key: Path) -> None:
    if find_spec("model_signing") is None:
        raise ConfigError("signatures need model-signing, which is not installed", fix="pip install 'vgid[sign]'")
    if not key.is_file():
        raise ConfigError("no such key file", where=key, expected="an elliptic curve key in PEM", fix="check the path")


def _hashing(out: Path) -> Any:
    from model_signing import hashing

    ignored = [out / WORK, out / MARK, out / SIGNATURE]
    return hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)
