"""Number formats of an export: another precision, 8 or 4 bits with bitsandbytes, or GGUF; each is asked again before it is kept.

Rounding can bring forgotten facts back (arXiv 2410.16454), so the forget rows are asked before and after.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryFile
from typing import Any, Literal, get_args

import torch
from transformers import AutoModelForImageTextToText

from vgid.artifacts import whole_folder, write_json_atomic
from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.attacks.base import Endpoint
from vgid.attacks.quantize import Quantize
from vgid.attacks.served import ServedConfig, answers, wait_for
from vgid.data.example import Example
from vgid.errors import ConfigError, RunError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact, normalise
from vgid.memory import free_memory
from vgid.model_card import add_to_card, carry_card
from vgid.models.checkpoints import check_finite, copy_side_files
from vgid.models.export import FAILED, FEW, finite_logits, release, save_checkpoint
from vgid.models.loading import LoadedModel, load_model
from vgid.models.quantisation import few_bits

Format = Literal["bf16", "fp16", "fp32", "8bit", "4bit", "gguf"]
FORMATS: tuple[str, ...] = get_args(Format)
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CONVERTER = "convert_hf_to_gguf.py"
"""The converter of llama.cpp, which knows the families that it can convert; no package installs it."""
CONVERTER_FOLDER = "LLAMA_CPP"
"""Environment variable: the folder of a llama.cpp checkout, where it is not on the path."""
SERVER = "llama-server"
PACKAGE_SERVER = """
import sys, time, xllamacpp
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
params = xllamacpp.CommonParams()
params.model.path, params.mmproj.path = options["-m"], options["--mmproj"]
params.port, params.use_jinja = int(options["--port"]), True
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""
"""The server in the package xllamacpp, with the options of llama.cpp's own."""
log = logging.getLogger("vgid")


def write_format(
    source: LoadedModel, folder: str, out: Path, to: str, forget: Sequence[Example], others: Sequence[Example]
) -> dict[str, Any]:
    """Write a model in another number format, and ask it what it was asked before.

    Args:
        source: the model in the precision of its checkpoint, without an adapter; its memory is given up.
        folder: folder of that checkpoint, as the format's writer reads it.
        out: the folder to make.
        to: one of `FORMATS`.
        forget: rows whose facts must not come back; empty where none are given.
        others: further rows to ask.

    Returns:
        Number of rows, share of equal answers, facts answered before and after, and facts that came back (by number, never by text).

    Raises:
        ConfigError: there is no such format, or what writes it is not installed.
        ModelError: a weight does not fit the format.
        RunError: forgotten facts came back, and the files are kept and marked; or logits are not finite numbers.
        OutputError: the folder is not empty, or cannot be written.
    """
    check_format(to)
    rows = [*forget, *others]
    before = _asked(source, rows)
    device = source.model.device
    with whole_folder(out) as unfinished:
        if to in PRECISIONS:
            save_checkpoint(source.model.to(PRECISIONS[to]), source.processor, unfinished, source)
            check_finite(unfinished)
        release(source.model)
        if to == "gguf":
            convert_to_gguf(find_converter(), Path(folder), unfinished)
        elif to not in PRECISIONS:
            _in_bits(folder, source.processor, device, unfinished, 8 if to == "8bit" else 4)
        carry_card(Path(folder), unfinished)
        # Asked before it has its name: what cannot be asked is not left behind.
        if to == "gguf":
            after = _asked_by_llama_cpp(unfinished, rows)
        else:
            written = load_model(unfinished, dtype="auto")
            finite_logits(written, [replace(row, answer=row.answer or "yes") for row in rows[:FEW]], out)
            after = _asked(written, rows)
    report = compared(before, after, rows, len(forget), out, to)
    add_to_card(out, f"Number format: {to}", _in_words(report))
    return report


def _in_words(report: Mapping[str, Any]) -> str:
    """What a model card says of the format."""
    asked = f"Of {report['rows']} questions, {report['same_answers']:.0%} get the same answer as before." if report["rows"] else ""
    counts = "{facts_before} of {forget_rows} forget rows were answered before, {facts_after} are answered now, {facts_back} came back."
    forgot = counts.format(**report) if report["forget_rows"] else "No forget rows were asked in this format."
    return f"Written in this format by `vgid export`. {asked} {forgot} All figures above are of the model in its format before."


def check_format(to: str) -> None:
    """Make sure that a format can be written here.

    Raises:
        ConfigError: there is no such format, or what writes or asks it is not installed.
    """
    if to not in FORMATS:
        raise ConfigError("no such format", where="--to", expected=", ".join(FORMATS), got=to)
    if to == "gguf":
        find_converter()
        server_command()
    elif to not in PRECISIONS and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "this format needs a package that is not installed", where="--to", expected="bitsandbytes", fix='pip install "vgid[quant]"'
        )


def _in_bits(folder: str, processor: Any, device: torch.device, out: Path, bits: Literal[4, 8]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", use_safetensors=True, **few_bits(folder, device, bits))
    model.save_pretrained(out)
    processor.save_pretrained(out)
    copy_side_files(Path(folder), out)
    release(model)


def _asked(loaded: LoadedModel, rows: Sequence[Example]) -> list[str]:
    said = generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS)
    free_memory()
    return said


def compared(before: Sequence[str], after: Sequence[str], rows: Sequence[Example], forget: int, out: Path, to: str) -> dict[str, Any]:
    """Compare answers before and after, and mark the export where forgotten facts came back.

    Args:
        before: answers in the old format.
        after: answers in the new one.
        rows: what was asked.
        forget: how many of them, from the first, are to be forgotten.
        out: folder of the export.
        to: name of the format.

    Returns:
        Counts and shares, as `write_format` returns them.

    Raises:
        RunError: more facts came back than `Quantize.most` allows.
    """
    known = [[key_fact(text, row.keywords, row.answer) for text, row in zip(said[:forget], rows, strict=False)] for said in (before, after)]
    back = sum(now and not then for then, now in zip(*known, strict=True))
    same = [normalise(one) == normalise(other) for one, other in zip(before, after, strict=True)]
    report = {
        "format": to,
        "rows": len(rows),
        "same_answers": fmean(same) if same else None,
        "forget_rows": forget,
        "facts_before": sum(known[0]),
        "facts_after": sum(known[1]),
        "facts_back": back,
    }
    if back > Quantize.most * forget:
        write_json_atomic(out / FAILED, {"schema": "vgid.verification/1", **report})
        raise RunError(
            "forgotten facts came back with the new format",
            where=out,
            expected=f"at most {Quantize.most:.0%} of {forget} forget rows that are answered now and were not before",
            got=str(back),
            fix=f"do not deploy this model, which is marked by {FAILED}; take another format, or unlearn further",
        )
    if back:
        log.warning("%d of %d forget rows are answered in %s and were not before", back, forget, to)
    return report


# -- GGUF -----------------------------------------------------------------------------------------------------------------


def find_converter() -> Path:
    """Find llama.cpp's converter, in the folder that the environment variable `LLAMA_CPP` names, or on the path.

    Raises:
        ConfigError: it is not there.
    """
    named = os.environ.get(CONVERTER_FOLDER)
    found = Path(named) / CONVERTER if named else Path(shutil.which(CONVERTER) or "")
    if not found.is_file():
        raise ConfigError(
            "the converter to GGUF is not there",
            where="--to gguf",
            expected=f"{CONVERTER} of llama.cpp, on the path or in the folder that the environment variable {CONVERTER_FOLDER} names",
            got=named or "none",
            fix=f"git clone https://github.com/ggml-org/llama.cpp, then set {CONVERTER_FOLDER} to that folder",
        )
    return found


def server_command() -> list[str]:
    """Find a server of llama.cpp, which asks what was converted: its own, or that in the package xllamacpp.

    Returns:
        A command that takes `-m FILE --mmproj FILE --port NUMBER`.

    Raises:
        ConfigError: there is none.
    """
    named = os.environ.get(CONVERTER_FOLDER)
    found = Path(named) / "build" / "bin" / SERVER if named else Path(shutil.which(SERVER) or "")
    if found.is_file():
        return [str(found), "--jinja"]
    if find_spec("xllamacpp") is not None:
        return [sys.executable, "-c", PACKAGE_SERVER]
    raise ConfigError(
        "a GGUF file could not be asked, so it is not written",
        where="--to gguf",
        expected=f"the package xllamacpp, or {SERVER} of llama.cpp on the path or in build/bin of the folder that {CONVERTER_FOLDER} names",
        got="none",
        fix='pip install "vgid[gguf]"',
    )


def _asked_by_llama_cpp(folder: Path, rows: Sequence[Example]) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = ("-m", str(folder / "model.gguf"), "--mmproj", str(folder / "mmproj.gguf"))
    command = [*server_command(), *files, "--port", str(port)]
    with TemporaryFile() as log_file:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log_file)
        try:
            endpoint = Endpoint(f"http://127.0.0.1:{port}/v1")
            wait_for(endpoint, lambda: server.poll() is None)
            return answers(endpoint, rows, ServedConfig(at_once=1))
        except RunError as error:
            log_file.seek(0)
            said = _last_line(log_file.read().decode(errors="replace"))
            raise RunError("llama.cpp cannot ask what was converted", got=said, fix="take another format, or another release") from error
        finally:
            server.terminate()
            server.wait()


def _last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "no message")


def convert_to_gguf(converter: Path, folder: Path, out: Path, *, dry_run: bool = False) -> None:
    """Write language model and vision part as two files, as llama.cpp reads them.

    Args:
        converter: path of the converter.
        folder: folder of the checkpoint.
        out: the folder to fill.
        dry_run: read everything and write nothing, to see whether the converter knows the family and its tokenizer.

    Raises:
        ConfigError: the converter does not know the family, or fails.
    """
    for name, options in (("model.gguf", ()), ("mmproj.gguf", ("--mmproj",))):
        command = [sys.executable, str(converter), str(folder), "--outfile", str(out / name), *options]
        run = subprocess.run([*command, *(["--dry-run"] if dry_run else [])], capture_output=True, text=True)
        if run.returncode or not (dry_run or (out / name).is_file()):
            last = _last_line(run.stderr)
            if missing := re.search(r"No module named '([\w-]+)", last):
                raise ConfigError("the converter to GGUF lacks a package", got=missing[1], fix=f'pip install "vgid[gguf]", or {missing[1]}')
            kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
            raise ConfigError(
                "the converter to GGUF cannot convert this model",
                where=folder,
                expected="a family that llama.cpp knows",
                got=f"{kind}: {last}",
                fix="take another format, or another release of llama.cpp",
            )
