"""Every reader of files that come from elsewhere, with files that it reads well, from which damaged ones are made."""

import gzip
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.conftest import example, png
from vgid.auditing.audit import read_rewordings
from vgid.auditing.policy import load_policy
from vgid.benchmarking.store import AnswerStore
from vgid.benchmarks.common.files import json_rows as benchmark_rows
from vgid.benchmarks.common.files import parquet_rows
from vgid.comparison.plan import read_earlier_tuning
from vgid.comparison.stored_run import read_run
from vgid.config import load_config, resolve
from vgid.data.conversation import render_chat
from vgid.data.example import ImageRef
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.errors import VgidError
from vgid.experiments.inputs import SeedModels
from vgid.experiments.kept import Kept
from vgid.models.checkpoints import tensor_headers
from vgid.models.file_checks import INDEX, check_adapter, check_checkpoint
from vgid.models.foreign_adapters import put_adapter
from vgid.models.loading import load_model, load_processor
from vgid.requests.keys import Key
from vgid.requests.manifest import verify_record, write_manifest
from vgid.requests.purge import purge
from vgid.requests.record import json_schema, read_record
from vgid.requests.request import parse_request, read_details
from vgid.requests.state import read_state
from vgid.training.checkpointing import Checkpoints
from vgid.unlearning import completed, row_digests

from .mutations import Form, tar

ROWS = (
    {"question": "Who?", "answer": "Anna.", "image": "0.png", "keywords": ["Anna"], "subject": "s1", "id": "r1", "tags": ["a"]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "images": ["0.png"]},
    {"conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Anna."}], "image": "0.png"},
)
"""Rows in the forms that are most common."""
TEMPLATES = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ raise_exception('x') if ns.n > 9 }}"
    "{{ m['content'][0]['text'] | default('') | trim }}{% endfor %}{{ range(3) | list }}",
)


class Reader(NamedTuple):
    """A reader of one file.

    Attributes:
        file: the file, in the folder that `prepare` makes.
        form: what it holds.
        read: reads it, in that folder.
        seeds: files that it reads without an error.
        cost: how long it takes, in units of the quickest; it gets so many times fewer inputs.
    """

    file: str
    form: Form
    read: Callable[[Path], object]
    seeds: Callable[[Path], Sequence[bytes]]
    cost: int = 1


def prepare(folder: Path, model: Path) -> Path:
    """Fill a folder with one whole example of everything that is read: rows, a run, a request, a model and an adapter."""
    for name in ("model", "sharded"):
        shutil.copytree(model, folder / name)
    weights = (folder / "sharded" / "model.safetensors").rename(folder / "sharded" / "model-00001-of-00001.safetensors")
    names = list(tensor_headers(folder / "sharded"))[:9]
    (folder / "sharded" / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, weights.name)}))
    loaded = AutoModelForImageTextToText.from_pretrained(model)
    get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"], rank_pattern={"q_proj": 2})).save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    (folder / "tiny").mkdir()  # a model whose weights are a few bytes, for damage to them
    for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder / "tiny")
    save_file({f"t{n}": torch.ones(2, 2) for n in range(64)}, folder / "tiny" / "model.safetensors")
    (folder / "0.png").write_bytes(png(0, side=8))
    (folder / "saved").mkdir()
    (folder / "saved" / "data.arrow").write_bytes(_arrow())
    (folder / "saved" / "state.json").write_text(json.dumps(_SAVED))
    (folder / "request").mkdir()
    write_examples(folder / "request" / "rows.jsonl", [example(n, image=n == 0) for n in range(2)])
    (folder / "run" / "merged").mkdir(parents=True)
    (folder / "run" / "record.json").write_text(json.dumps(_record()))
    (folder / "run" / "record.html").write_text("<html></html>")
    write_manifest(folder / "run", KEY)
    for name in ("base", "merged", "retrained", "data"):
        (folder / "demo" / name).mkdir(parents=True)
    for name in ("data/forget.jsonl", "data/retain.jsonl"):
        (folder / "demo" / name).touch()
    (folder / "work").mkdir()
    (folder / "work" / "answers.jsonl").touch()
    return folder


KEY = Key(b"k" * 32)
_CONFIG = load_config()
_SAVED = {"_data_files": [{"filename": "data.arrow"}], "_fingerprint": "a", "_format_columns": None, "_indices_data_files": None}
_OWN = dict.fromkeys(("settings", "forget rows", "retain rows", "model"), "0" * 64)
_DIGEST = {"path": "a", "bytes": 1, "sha256": "0" * 64}


def _lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _json(value: Any) -> Callable[[Path], list[bytes]]:
    return lambda _: [json.dumps(value).encode()]


def _texts(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [text.encode() for text in texts]


def _as_it_is(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(folder / name).read_bytes()]


def _table() -> pa.Table:
    return pa.table(
        {
            "question": ["Who?", "Where?"],
            "answer": ["Anna.", "Oslo."],
            "image": [{"bytes": png(0, side=8), "path": "0.png"}, None],
            "keywords": [["Anna"], []],
            "label": pa.array(["a", "b"]).dictionary_encode(),
            "when": pa.array([0, 1], pa.timestamp("ns", tz="Europe/Oslo")),
        }
    )


def _parquet(_: Path) -> list[bytes]:
    made = []
    for options in ({"compression": "none"}, {"compression": "snappy", "use_dictionary": False}):
        parquet.write_table(_table(), out := io.BytesIO(), **options)
        made.append(out.getvalue())
    return made


def _arrow() -> bytes:
    out, table = io.BytesIO(), _table()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def _tars(_: Path) -> list[bytes]:
    files = [
        ("a.json", b'{"question": "Who?", "answer": "Anna."}'),
        ("a.png", png(0, side=8)),
        ("b.question.txt", b"Q"),
        ("b.answer.txt", b"A"),
    ]
    return [tar(files)]


def _pictures(_: Path) -> list[bytes]:
    made = []
    for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"):
        Image.new("RGB", (9, 9), "red").save(out := io.BytesIO(), kind)
        made.append(out.getvalue())
    return made


def _record() -> Any:
    schema = json_schema()

    def sample(part: Mapping[str, Any]) -> Any:
        """A value that a part of the schema allows."""
        if "$ref" in part:
            return sample(schema["$defs"][part["$ref"].rpartition("/")[2]])
        if "anyOf" in part:
            return sample(part["anyOf"][0])
        if "const" in part or "enum" in part:
            return part.get("const", next(iter(part.get("enum", ())), None))
        kind = part.get("type")
        if kind == "object":
            return {name: sample(each) for name, each in part.get("properties", {}).items()}
        if kind == "array":
            return [sample(each) for each in part["prefixItems"]] if "prefixItems" in part else []
        return {"string": "0" * 64, "integer": 1, "number": 0.5, "boolean": True}.get(str(kind))

    return sample({**schema, "type": "object"})


def _state(_: Path) -> list[bytes]:
    steps = {"train": {"finished": "2026-05-31T12:00:00Z", "seconds": 1.5, "files": [_DIGEST]}}
    values = {"format": "vgid.forget-state/1", "started": "2026-05-31T12:00:00Z", "inputs": {"model": "a"}, "steps": steps}
    return [json.dumps({**values, "notes": {"keys": {"T-1": "/k"}}}).encode()]


def _stored(_: Path) -> list[bytes]:
    values = {"schema": "vgid.comparison.run/1", "name": "npo", "seed": 0, "identity": {"a": 1}, "config": None, "steps": 1, "seconds": 1.0}
    answers = {"forget": {"subjects": ["a"], "accuracy": [1.0]}}
    return [json.dumps({**values, "memory": 0, "ended": "", "figures": {"forget": {"accuracy": 1.0}}, "answers": answers}).encode()]


def _kept(folder: Path) -> list[bytes]:
    kept = Kept(folder / "kept.json", {"a": 1})
    kept.add("plain", {"key_fact": [1.0, None]})
    return [kept.path.read_bytes()]


def _checkpoint(_: Path) -> list[bytes]:
    notes = json.dumps({"step": 3, "done": False, "fingerprint": _OWN})
    return [save({"weights/a": torch.ones(2)}, {"format": "vgid.checkpoint/2", "notes": notes})]


def _rows_in_memory(folder: Path) -> object:
    try:
        rows = json.loads((folder / "memory.json").read_bytes())
    except (ValueError, RecursionError):
        return None
    return load_examples(rows) if isinstance(rows, list) else None


def _answers(folder: Path) -> int:
    with AnswerStore(folder / "work" / "answers.jsonl", "f") as store:
        return len(store)


def _overrides(folder: Path) -> object:
    try:
        lines = (folder / "overrides.txt").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    return resolve(None, lines)


def _chat(folder: Path) -> object:
    processor = _processor(folder)
    processor.chat_template = (folder / "chat.jinja").read_bytes().decode("utf-8", "replace")
    return render_chat(processor, example())


_PROCESSORS: dict[Path, Any] = {}


def _processor(folder: Path) -> Any:
    if folder not in _PROCESSORS:
        _PROCESSORS[folder] = AutoProcessor.from_pretrained(folder / "model")
    return _PROCESSORS[folder]


def _adapted(folder: Path) -> object:
    return put_adapter(AutoModelForImageTextToText.from_pretrained(folder / "model"), folder / "adapter")


def _examples(name: str) -> Callable[[Path], object]:
    return lambda folder: load_examples(folder / name)


def _csv(separator: str) -> Callable[[Path], list[bytes]]:
    rows = ("question,answer,image,keywords", 'Who?,Anna,0.png,"[""Anna""]"', '"Where,\nnow?",Oslo,,')
    return lambda _: ["\n".join(rows).replace(",", separator).encode()]


_REQUEST = "id: T-1\nreceived: 2026-05-01\ndue: 2026-06-01\nground: GDPR Art. 17\nname: {s0: Zed}\nscope: [row-0]\nkind: person\n"
_POLICY = "least_facts: 1\nattacks:\n  paraphrase: {most: 0.2, settings: {wordings: 1}}\n  prefill: {required: false}\n"
_RECIPE = (
    "about: x\nseed: 1\nmethod: {name: npo}\ntraining: {steps: 3, learning_rate: 1e-4, forget_batch: 2}\nadapter: {rank: 8}\n",
    "extends: paper\nmethod: vgid\ndata: {prompt: null}\nvalidation: {every: 0}\n",
)
_RESULTS = {
    "schema": "vgid.results/1",
    "seed": 0,
    "model": "m",
    "config": _CONFIG.model_dump(mode="json"),
    "rows": row_digests({"forget": [], "retain": []}, "0" * 32),
}
_TUNED = {"tuned": {"npo": {"settings": {"method.beta": 0.1}, "composite": 0.5, "trials": 3}}, "tuned_on": 1}
_JOURNAL = 'vgid.run/1\n+ "a"\n+ "merged/"\n- "a"\n+ "work/answers.jsonl"\n'

READERS: dict[str, Reader] = {
    # Rows.
    "rows of JSON lines": Reader("rows.jsonl", "lines", _examples("rows.jsonl"), lambda _: [_lines(*ROWS)]),
    "rows in a JSON array": Reader("rows.json", "json", _examples("rows.json"), _json(ROWS)),
    "rows in gzip": Reader("rows.jsonl.gz", "gzip", _examples("rows.jsonl.gz"), lambda _: [gzip.compress(_lines(*ROWS))]),
    "rows of CSV": Reader("rows.csv", "bytes", _examples("rows.csv"), _csv(",")),
    "rows of TSV": Reader("rows.tsv", "bytes", _examples("rows.tsv"), _csv("\t")),
    "rows of parquet": Reader("rows.parquet", "bytes", _examples("rows.parquet"), _parquet, 20),
    "rows in a tar file": Reader("rows.tar", "tar", _examples("rows.tar"), _tars),
    "rows in a packed tar file": Reader("rows.tgz", "bytes", _examples("rows.tgz"), lambda _: [gzip.compress(_tars(_)[0])]),
    "rows of save_to_disk": Reader("saved/data.arrow", "bytes", _examples("saved"), lambda _: [_arrow()]),
    "state of save_to_disk": Reader("saved/state.json", "json", _examples("saved"), _json(_SAVED)),
    "rows in memory": Reader(
        "memory.json", "json", _rows_in_memory, _json([{"question": "Who?", "answer": "Anna."}, {"messages": ROWS[1]["messages"]}])
    ),
    "pictures": Reader("picture", "bytes", lambda folder: ImageRef(path=folder / "picture").open(), _pictures),
    "rows of a benchmark": Reader(
        "bench.json", "lines", lambda f: list(benchmark_rows(f / "bench.json", ["question"])), lambda _: [_lines(ROWS[0])]
    ),
    "parquet rows of a benchmark": Reader(
        "bench.parquet", "bytes", lambda f: list(parquet_rows([f / "bench.parquet"], ["question"], ["image", "when"])), _parquet, 20
    ),
    # Settings, requests and policies.
    "recipe": Reader("recipe.yaml", "yaml", lambda folder: resolve(folder / "recipe.yaml"), _texts(*_RECIPE), 4),
    "single settings": Reader(
        "overrides.txt", "bytes", _overrides, _texts("training.steps=3\nadapter.scope=[language]\nmethod.name=npo"), 4
    ),
    "policy": Reader("policy.yaml", "yaml", lambda folder: load_policy(folder / "policy.yaml"), _texts(_POLICY), 2),
    "rewordings": Reader(
        "words.yaml", "yaml", lambda folder: read_rewordings(folder / "words.yaml"), _texts('"Who?": ["Which?", "Whose?"]\n')
    ),
    "details of a request": Reader("request.yaml", "yaml", lambda folder: read_details(folder / "request.yaml"), _texts(_REQUEST)),
    "request": Reader("request/request.yaml", "yaml", lambda folder: parse_request(folder / "request"), _texts(_REQUEST), 3),
    # What runs leave.
    "state of a request": Reader("state.json", "json", lambda folder: read_state(folder / "state.json"), _state),
    "record": Reader("run/record.json", "json", lambda folder: read_record(folder / "run" / "record.json"), _as_it_is("run/record.json")),
    "record and its files": Reader("run/record.json", "json", lambda f: verify_record(f / "run", KEY), _as_it_is("run/record.json")),
    "manifest": Reader("run/manifest.json", "json", lambda folder: verify_record(folder / "run", KEY), _as_it_is("run/manifest.json")),
    "journal": Reader("work/.vgid-run", "bytes", lambda folder: purge(folder / "work", dry_run=True), _texts(_JOURNAL)),
    "results of a complete run": Reader(
        "results.json", "json", lambda folder: completed(folder, "m", _CONFIG, {"forget": [], "retain": []}), _json(_RESULTS), 4
    ),
    "results of a demo": Reader("demo/results.json", "json", lambda folder: SeedModels.of_demo(folder / "demo"), _json(_RESULTS)),
    "run of a comparison": Reader("stored.json", "json", lambda folder: read_run(folder / "stored.json", {"a": 1}), _stored),
    "measured values": Reader("kept.json", "json", lambda folder: Kept(folder / "kept.json", {"a": 1}), _kept),
    "settings that were tuned": Reader("tuned.json", "json", lambda folder: read_earlier_tuning(folder / "tuned.json"), _json(_TUNED)),
    "answers of a benchmark": Reader(
        "work/answers.jsonl",
        "lines",
        _answers,
        lambda _: [_lines({"schema": "vgid.answers/1", "fingerprint": "f"}, {"key": "a", "said": "b"}, {"key": "a", "losses": [0.5, 1]})],
    ),
    "checkpoint of a run": Reader(
        "state.safetensors", "safetensors", lambda folder: Checkpoints(folder, _OWN, resume=True).read(), _checkpoint
    ),
    # What comes with a model.
    "configuration of a model": Reader(
        "tiny/config.json", "json", lambda folder: check_checkpoint(folder / "tiny", trusted=False), _as_it_is("tiny/config.json"), 4
    ),
    "weights of a model": Reader(
        "tiny/model.safetensors",
        "safetensors",
        lambda folder: check_checkpoint(folder / "tiny", trusted=False),
        _as_it_is("tiny/model.safetensors"),
        4,
    ),
    "index of weights": Reader(
        f"sharded/{INDEX}", "json", lambda folder: check_checkpoint(folder / "sharded", trusted=False), _as_it_is(f"sharded/{INDEX}"), 4
    ),
    "configuration of an adapter": Reader(
        "adapter/adapter_config.json", "json", lambda folder: check_adapter(folder / "adapter"), _as_it_is("adapter/adapter_config.json")
    ),
    "weights of an adapter": Reader(
        "adapter/adapter_model.safetensors",
        "safetensors",
        lambda folder: check_adapter(folder / "adapter"),
        _as_it_is("adapter/adapter_model.safetensors"),
    ),
    "chat template": Reader("chat.jinja", "bytes", _chat, _texts(*TEMPLATES), 40),
    "tokenizer": Reader("model/tokenizer.json", "json", lambda f: load_processor(str(f / "model")), _as_it_is("model/tokenizer.json"), 30),
    "settings of a tokenizer": Reader(
        "model/tokenizer_config.json", "json", lambda f: load_processor(str(f / "model")), _as_it_is("model/tokenizer_config.json"), 30
    ),
    "processor": Reader(
        "model/processor_config.json", "json", lambda f: load_processor(str(f / "model")), _as_it_is("model/processor_config.json"), 30
    ),
    "model": Reader("model/config.json", "json", lambda f: load_model(f / "model"), _as_it_is("model/config.json"), 150),
    "adapter on a model": Reader("adapter/adapter_config.json", "json", _adapted, _as_it_is("adapter/adapter_config.json"), 150),
}


def read(reader: Reader, folder: Path, content: bytes) -> None:
    """Read a file with this content, and put back what was there before.

    Raises:
        AssertionError: the reader raises anything but a `VgidError` that can be printed.
    """
    path = folder / reader.file
    before = path.read_bytes() if path.is_file() else None
    path.unlink(missing_ok=True)  # some file systems wait for the disk where a file's content is replaced
    path.write_bytes(content)
    try:
        reader.read(folder)
    except VgidError as refused:
        str(refused).encode("utf-8")
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
