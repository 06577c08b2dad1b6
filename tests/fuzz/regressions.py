"""Files that once ended in a traceback, or ended the process, by the name of their reader."""

import io

import pyarrow as pa
from pyarrow import parquet

from tests.fuzz.mutations import DEEP

_LONG_NUMBER = b'{"question": ' + b"9" * 5000 + b"}"
_TABLE = pa.table({"question": ["Who was?"], "answer": ["Anna."]})


def _last_replaced(content: bytes, part: bytes, other: bytes) -> bytes:
    before, found, after = content.rpartition(part)
    assert found, f"the file does not hold {part!r}"
    return before + other + after


def _arrow_with_a_text_of_gigabytes() -> bytes:
    """The second column's text goes from 0 to 5; here, to 2**31 - 1."""
    with pa.ipc.new_stream(out := io.BytesIO(), _TABLE.schema) as stream:
        stream.write_table(_TABLE)
    return _last_replaced(out.getvalue(), b"\0\0\0\0\5\0\0\0", b"\0\0\0\0\xff\xff\xff\x7f")


def _parquet_of_an_unknown_repetition() -> bytes:
    """Before its name, a column of the metadata says 1 (optional; 2 as a zigzag number); here, 3, which means nothing."""
    parquet.write_table(_TABLE, out := io.BytesIO(), store_schema=False)
    return _last_replaced(out.getvalue(), b"\x25\x02\x18\x06answer", b"\x25\x06\x18\x06answer")


REGRESSIONS: tuple[tuple[str, bytes], ...] = (
    ("rewordings", b"[" * DEEP),
    ("rows of a benchmark", _LONG_NUMBER),
    ("rows of a benchmark", b"[" + _LONG_NUMBER + b"]"),
    ("rows of a benchmark", b"[" * DEEP),
    ("rows in a JSON array", b'[{"a": {"b": 1, "b": 2}, "c": "d"e"}]'),
    ("details of a request", b"[" * 4018),
    ("answers of a benchmark", b'{"schema": "vgid.answers/1", "fingerprint": "f"}\n' * 2),
    ("answers of a benchmark", b'{"schema": "vgid.answers/1", "fingerprint": "f"}\n{"key": "a", "said": 5, "losses": [1]}\n'),
    ("rows in a packed tar file", b"\x1f\x8b\x08"),
    ("rows of save_to_disk", _arrow_with_a_text_of_gigabytes()),
    ("rows of parquet", _parquet_of_an_unknown_repetition()),
    ("manifest", b'{"schema": ["vgid.manifest/1"], "files": {}, "hmac": ""}'),
    ("results of a demo", b"{}"),
    ("results of a demo", b'{"seed": "0"}'),
    ("results of a demo", b'{"seed": {}}'),
    ("configuration of a model", b'{"model_type": "llava", "text_config": true}'),
    ("configuration of a model", b'{"model_type": "llava", "text_config": [1]}'),
    ("configuration of a model", b'{"model_type": "llava", "vision_config": {"quantization_config": "a"}}'),
    ("configuration of a model", b'{"model_type": "llava", "architectures": 1}'),
)
