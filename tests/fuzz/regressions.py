"""Files that once ended in a traceback, or ended the process, by the name of their reader."""

from tests.fuzz.mutations import DEEP

_LONG_NUMBER = b'{"question": ' + b"9" * 5000 + b"}"

REGRESSIONS: tuple[tuple[str, bytes], ...] = (
    ("rewordings", b"[" * DEEP),
    ("rows of a benchmark", _LONG_NUMBER),
    ("rows of a benchmark", b"[" + _LONG_NUMBER + b"]"),
    ("rows of a benchmark", b"[" * DEEP),
    ("rows in a packed tar file", b"\x1f\x8b\x08"),
    ("manifest", b'{"schema": ["vgid.manifest/1"], "files": {}, "hmac": ""}'),
    ("results of a demo", b"{}"),
    ("results of a demo", b'{"seed": "0"}'),
    ("results of a demo", b'{"seed": {}}'),
)
