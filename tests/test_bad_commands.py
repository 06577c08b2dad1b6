"""Bad commands: each ends with its exit code and one message that says what is wrong, writes nothing and removes nothing."""

import gzip
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.conftest import Vgid, example
from vgid import limits
from vgid.artifacts import write_text_atomic
from vgid.commands import app
from vgid.data.writing import write_examples, write_parquet
from vgid.errors import OutputError
from vgid.requests.purge import TEMPORARY
from vgid.run_folder import output_folder

RUN = "unlearn --model {model} --forget {forget} --retain {retain} --out {out}"
AUDIT = "audit --model {model} --base {model} --forget {forget} --retain {retain}"
REQUEST = "forget --request {request} --model {model} --out {out}"

QUICK = "--set training.steps=1 --set method.replay.narrow=false --set validation.every=0"

# Commands, and a part of the message that tells the problem from others. All of them end with 2, since what they were given is at fault.
COMMANDS = [
    ("unlern", "Did you mean 'unlearn'?"),
    ("unlearn --modell {model}", "No such option"),
    # models
    ("unlearn --model {model} --forget {forget}", "Missing option '--out'"),
    ("unlearn --model {model} --out {out}", "Missing option '--forget'"),
    ("unlearn --model {none} --forget {forget} --out {out}", "no such model folder"),
    ("unlearn --model {file} --forget {forget} --out {out}", "no such model folder"),
    ("unlearn --model {empty} --forget {forget} --out {out}", "expected: config.json"),
    ("unlearn --model {broken} --forget {forget} --out {out}", "config.json: the file cannot be read"),
    ("unlearn --model {cut} --forget {forget} --out {out}", "the weights cannot be read"),
    # rows
    ("unlearn --model {model} --forget {none} --out {out}", "no such file or folder"),
    ("unlearn --model {model} --forget {nothing} --out {out}", "the data file is empty"),
    ("unlearn --model {model} --forget {deep} --out {out}", "deep.jsonl:1: JSON is nested too deeply"),
    ("unlearn --model {model} --forget {latin} --out {out}", "latin.jsonl:1: line is not UTF-8"),
    ("unlearn --model {model} --forget {surrogate} --out {out}", "surrogate.jsonl:1: question holds half of a surrogate pair"),
    ("unlearn --model {model} --forget {no_picture} --out {out}", "no_picture.jsonl:1: image not found"),
    ("unlearn --model {model} --forget {fifo} --out {out}", "not an ordinary file"),
    ("unlearn --model {model} --forget {loop} --out {out}", "Too many levels of symbolic links"),
    ("unlearn --model {model} --forget {forget} --retain {forget} --out {out}", "in the forget set and in the retain set"),
    ("unlearn --model {model} --forget {forget} --retain {none} --out {out}", "no such file or folder"),
    ("data check {forget} --show-forgotten", "add --as-seen --model"),
    ("data check {forget} --max-rows 2", "add --as-seen --model"),
    ("evaluate --model {model} --benchmark mllmu --data {forget} --turns all", "--turns and --image-root say how own data is read"),
    (f"{REQUEST} --turns some", "Invalid value for '--turns'"),
    (f"{REQUEST} --image-root {{none}}", "there is no such folder of pictures"),
    (
        "finetune --model {model} --benchmark mllmu --data {forget} --turns all --out {out}",
        "--turns and --image-root say how own data is read",
    ),
    ("export --model {model} --out {out} --push name", "there can be no such repository"),
    ("export --model {model} --out {out} --push owner/name", "no HF_TOKEN"),
    # settings
    (f"{RUN} --recipe papr", "did you mean 'paper'?"),
    (f"{RUN} --recipe {{none}}", "unknown recipe"),
    (f"{RUN} --recipe {{binary}}", "binary.yaml:1: the file is not UTF-8"),
    (f"{RUN} --method vgd", "did you mean 'vgid'?"),
    (f"{RUN} --set nothing", "expected: key.subkey=value"),
    (f"{RUN} --set training.lerning_rate=1", "did you mean 'learning_rate'?"),
    (f"{RUN} --set training.steps=-1", "training.steps: Input should be greater than or equal to 1"),
    (f"{RUN} --set training.steps=1e400", "training.steps: Input should be a valid integer"),
    (f"{RUN} --set training.learning_rate=.inf", "training.learning_rate: Input should be a finite number"),
    (f"{RUN} --set training.learning_rate=.nan", "training.learning_rate: Input should be a finite number"),
    (f"{RUN} --set training.learning_rate=-1", "training.learning_rate: Input should be greater than 0"),
    (f"{RUN} --set training.epochs=-2", "training.epochs: Input should be greater than 0"),
    (f"{RUN} --set training.forget_batch=1000000", "training.forget_batch: Input should be less than or equal to 4096"),
    (f"{RUN} --set training.retain_batch=1000000", "training.retain_batch: Input should be less than or equal to 4096"),
    (f"{RUN} --set training.retain_ratio=4000", "retain_ratio x forget_batch is 16000 rows in a step, of at most 4096"),
    (f"{RUN} --set training.precision=fp7", "training.precision: Input should be"),
    (f"{RUN} --set training.report_to=[wandbb]", "did you mean 'wandb'?"),
    (f"{RUN} --set method.nose.kind=blur", "did you mean 'noise'?"),
    (f"{RUN} --set adapter.scope=[]", "the LoRA scope matches no linear layer"),
    (f"{RUN} --set adapter.rank=0", "adapter.rank: Input should be greater than or equal to 1"),
    (f"{RUN} --set adapter.dropout=1.5", "adapter.dropout: Input should be less than 1"),
    (f"{RUN} --set method.alpha=-1", "method.alpha: Input should be greater than or equal to 0"),
    (f"{RUN} --set method.temperature=0", "method.temperature: Input should be greater than 0"),
    (f"{RUN} --set method.answers=[]", "method.answers: Tuple should have at least 1 item"),
    (f"{RUN} --set method.names=true", "method.names: renamed; it is now mask_names"),
    (f"{RUN} --seed -1", "Invalid value for '--seed'"),
    (f"{RUN} --seed 99999999999999999999999", "Invalid value for '--seed'"),
    (f"{RUN} --seed one", "Invalid value for '--seed'"),
    (f"{RUN} --max-rows -3", "Invalid value for '--max-rows'"),
    (f"{RUN} --resume --overwrite", "contradict each other"),
    ("config --recipe papr", "did you mean 'paper'?"),
    ("unlearn --examine 3", "use --max-rows"),
    ("audit --rows=3", "use --max-rows"),
    ("evaluate --retrained x", "use --reference"),
    ("evaluate --benchmark mllmu --set a=1", "use --protocol"),
    ("config --set a.b=1", "a: unknown key"),
    # output folders
    ("unlearn --model {model} --forget {forget} --out {theirs}", "the output folder is not empty"),
    ("unlearn --model {model} --forget {forget} --out {theirs} --overwrite", "was not made by vgid"),
    ("unlearn --model {model} --forget {forget} --out {file}", "is a file"),
    ("unlearn --model {model} --forget {forget} --out {file}/below", "the output folder cannot be made"),
    ("unlearn --model {model} --forget {forget} --out {data} --overwrite", "an input of the run lies in the output folder"),
    ("unlearn --model {model} --forget {forget} --out {model} --overwrite", "an input of the run lies in the output folder"),
    ("evaluate --model {model} --data {forget} --out {theirs}", "the output folder is not empty"),
    ("export --model {model} --out {theirs}", "the folder is not empty"),
    ("compare --methods vgid --out {theirs}", "was not made by vgid"),
    ("demo --out {theirs}", "the output folder is not empty"),
    ("evaluate --model {model} --data {forget} --out {long}", "File name too long"),
    ("evaluate --model {model} --data {forget} --max-rows 2", "an option does nothing without --utility"),
    ("evaluate --model {model} --utility all", "lmms-eval:FAMILY:TASK,TASK"),
    ("evaluate --model {model} --data=", "--data: an argument is empty"),
    ("purge {none}", "was not made by vgid"),
    ("purge {theirs}", "was not made by vgid"),
    # the other commands
    ("finetune --model {model} --out {out}", "there is nothing to learn"),
    ("finetune --model {model} --data {none} --out {out}", "no such file or folder"),
    ("finetune --model {model} --data {forget} --without {none} --out {out}", "no such file or folder"),
    ("finetune --model {model} --data {forget} --train everything --out {out}", "Invalid value for '--train'"),
    ("finetune --model {model} --data {forget} --benchmark mlmu --out {out}", "did you mean 'mllmu'?"),
    ("evaluate --model {model}", "there is nothing to ask"),
    ("evaluate --model {none} --data {forget}", "no such model folder"),
    ("evaluate --model {model} --data {none}", "no such file or folder"),
    ("evaluate --model {model} --data {forget} --adapter {empty}", "the folder holds no adapter"),
    ("evaluate --model {model} --benchmark mlmu --data {forget}", "did you mean 'mllmu'?"),
    ("evaluate --model {model} --data {forget} --batch-size 0", "Invalid value for '--batch-size'"),
    ("audit --model {model} --base {none} --forget {forget} --retain {retain}", "no such model folder"),
    ("audit --model {model} --base {model} --forget {none} --retain {retain}", "no such file or folder"),
    ("audit --model {model} --base {model} --forget {forget} --retain {forget}", "in the forget set and in the retain set"),
    (f"{AUDIT} --reference {{none}}", "no such model folder"),
    (f"{AUDIT} --policy {{none}}", "no such policy file"),
    (f"{AUDIT} --policy {{binary}}", "binary.yaml:1: the file is not UTF-8"),
    (f"{AUDIT} --profile slow", "Invalid value for '--profile'"),
    (f"{AUDIT} --served ftp://x", "not an http or https URL"),
    (f"{AUDIT} --served http://[::1/v1", "not an http or https URL"),
    (f"{AUDIT} --served http://127.0.0.1:port/v1", "not an http or https URL"),
    (f"{AUDIT} --served-model name", "an option does nothing without --served"),
    ("forget --request {request} --out {out}", "a run starts from one model"),
    ("forget --request {none} --model {model} --out {out}", "request"),
    ("forget --request {empty} --model {model} --out {out}", "no data file in the folder"),
    ("forget --request {list} --model {model} --out {out}", "request.yaml"),
    ("forget --request {unknown} --model {model} --out {out}", "unknown key"),
    ("forget --request {bad_date} --model {model} --out {out}", "write dates as 2026-05-31"),
    ("forget --request {details_pipe} --model {model} --out {out}", "request.yaml: not a plain file"),
    ("forget --request {details_yml} --model {model} --out {out}", "request.yml: the request's details have another name"),
    (f"{REQUEST} --without sleep", "there is no such kind of rows"),
    (f"{REQUEST} --key {{none}}", "key"),
    ("forget --request {request} --model {none} --out {out}", "no such model folder"),
    ("export --model {none} --out {out}", "no such model folder"),
    ("export --model {model} --out {out} --to fp3", "no such format"),
    ("export --model {model} --out {out} --adapter {none}", "the folder holds no adapter"),
    ("verify-export {empty}", "the folder holds no export"),
    ("verify-served localhost:8000 --model {model} --base {model} --forget {forget}", "not an http or https URL"),
    ("verify-served http://localhost:1/v1 --model {model} --base {none} --forget {forget}", "no such model folder"),
    ("verify-served http://localhost:1/v1 --model {model} --base {model} --forget {nothing}", "the data file is empty"),
    ("bench mlmu --model {model} --out {out}", "did you mean 'mllmu'?"),
    ("bench mllmu --model {model} --data {none} --out {out}", "no such file or folder"),
    ("bench people --model {none} --out {out}", "no such model folder"),
    ("compare --methods vgd --out {out}", "did you mean 'vgid'?"),
    ("compare --methods vgid --seeds 1000000000 --out {out}", "Invalid value for '--seeds'"),
    ("compare --methods vgid --people 1000000000 --out {out}", "more people than can be drawn"),
    ("compare --methods vgid --people 2 --forget 5 --out {out}", "expected: 0 < forget < people"),
    ("demo --people 2 --forget 2 --out {out}", "expected: 0 < forget < people"),
    ("demo --target nowhere --out {out}", "unknown target"),
    ("experiment reverse --demo {none} --out {out}", "the folder holds no demo with its models"),
    ("experiment ablate --demo {none} --out {out}", "the folder holds no demo with its models"),
    ("experiment sequence --model {model} --out {out}", "an own model needs its rows"),
    ("experiment sequence --requests 64 --out {out}", "somebody must stay"),
    ("data lmms-task {out}", "one thing is asked"),
    ("data lmms-task {out} --forget {forget} --task a/b", "there can be no such task"),
    ("data lmms-task {out} --benchmark fiubench --data {none}", "no such file or folder"),
    ("experiment ablate --sweep nothing --seeds 1 --out {out}", "there is no such sweep"),
    ("metrics meta --demo {none} --out {out}", "the folder holds no demo with its models"),
    ("metrics meta --knows {none} --never {model} --forget {forget} --retain {retain} --out {out}", "no such model folder"),
    ("metrics meta --knows {model} --never {model} --forget {forget} --retain {retain} --attacks prefil --out {out}", "'prefill'?"),
    ("metrics measure --model {model} --forget {forget} --retain {retain} --metric bleuu", "did you mean 'bleu'?"),
    ("data check {none}", "no such file or folder"),
    ("data check {empty}", "no data file in the folder"),
    ("data check {forget} --benchmark mlmu", "did you mean 'mllmu'?"),
    ("data check {forget} --turns some", "Invalid value for '--turns'"),
    ("data check {special} --benchmark unlok_vqa", "not an ordinary file"),
    ("data check {special} --benchmark mllmu", "not an ordinary file"),
    ("data check {forget} --forget-part 5", "an option does nothing without --benchmark"),
    ("data convert {forget} {out}.parquet --split forget", "an option does nothing without --benchmark"),
    ("data convert {forget} {parquet_cut} --overwrite", "the file was not written by vgid"),
    ("data convert {rows} {rows} --overwrite", "the file to write is read, too"),
    ("data convert {forget} {file}", "only parquet can be written"),
    ("data enrich {forget} --model {none} --out {out}", "no such model folder"),
    ("data enrich {forget} --model {model} --out {out} --without sleep", "there is no such kind of rows"),
    ("data others --model {model} --out {out}", "nobody is named"),
    ("data others --model {model} --out {out} --pictures {none}", "no such folder"),
    ("data others --model {model} --out {out} --pictures {empty}", "there is no picture"),
    ("data others --model {none} --out {out} --names {file}", "no such model folder"),
    ("record verify {none}", "no such folder"),
    ("record verify {empty}", "there is no manifest"),
    ("record replay {empty} --out {out}", "there is no record"),
    ("inspect --before {model} --after {model} --data {forget} --port 99999999", "Invalid value for '--port'"),
]

# Every kind of bad rows, and every option that reads rows.
BAD_ROWS = {
    "nothing": "the data file is empty",
    "deep": "deep.jsonl:1: JSON is nested too deeply",
    "latin": "latin.jsonl:1: line is not UTF-8",
    "surrogate": "surrogate.jsonl:1: question holds half of a surrogate pair",
    "fifo": "not an ordinary file",
    "loop": "Too many levels of symbolic links",
    "no_picture": "no_picture.jsonl:1: image not found",
    "picture_pipe": "image is not an ordinary file",
    "picture_loop": "image has a path that leads nowhere",
    "picture_outside": "image lies outside the data folder",
    "picture_zero": "image file is empty",
    "picture_large": "may be a decompression bomb",
    "list_cut": "list_cut.json:2: malformed JSON",
    "parquet_cut": "parquet file cannot be read",
    "gzip_cut": "the file cannot be read",
    "tar_cut": "tar file cannot be read",
    "escape": r"\x1b[2J\x1b]0;x\x07.jsonl",
}
READING = [
    "unlearn --model {model} --out {out} --forget {rows}",
    "unlearn --model {model} --out {out} --forget {forget} --retain {rows}",
    "unlearn --model {model} --out {out} --forget {forget} --held-out {rows}",
    "finetune --model {model} --out {out} --data {rows}",
    "finetune --model {model} --out {out} --data {forget} --without {rows}",
    "evaluate --model {model} --data {rows}",
    "audit --model {model} --base {model} --retain {retain} --forget {rows}",
    "audit --model {model} --base {model} --forget {forget} --retain {rows}",
    "audit --model {model} --base {model} --forget {forget} --retain {retain} --unseen {rows}",
    "preflight --model {model} --forget {rows}",
    "preflight --model {model} --forget {forget} --retain {rows}",
    "forget --request {request} --model {model} --out {out} --retain {rows}",
    "retrain --request {request} --model {model} --out {out} --retain {rows}",
    "export --model {model} --out {out} --to bf16 --retain {retain} --forget {rows}",
    "experiment reverse --base {model} --model {model} --reference {model} --retain {retain} --out {out} --forget {rows}",
    "experiment ablate --base {model} --reference {model} --retain {retain} --out {out} --forget {rows}",
    "experiment sequence --model {model} --retain {retain} --out {out} --forget {rows}",
    "metrics measure --model {model} --retain {retain} --forget {rows}",
    "metrics meta --knows {model} --never {model} --retain {retain} --out {out} --forget {rows}",
    "verify-export {model} --base {model} --data {rows}",
    "verify-served http://localhost:1/v1 --model {model} --base {model} --forget {rows}",
    "data convert {rows} {out}.parquet",
    "data lmms-task {out} --forget {rows}",
    "data enrich {rows} --model {model} --out {out}",
    "data check {rows}",
]
COMMANDS += [
    (command.replace("{rows}", f"{{{name}}}"), says)
    for command in READING
    for name, says in BAD_ROWS.items()
    if name in ("deep", "latin") or command.startswith(("evaluate", "data check"))
]

# Every kind of bad checkpoint.
BAD_MODELS = {
    "config_deep": "config.json: the file cannot be read",
    "config_list": "config.json: the file is not a JSON object",
    "config_latin": "config.json: the file cannot be read",
    "config_of_no_kind": "the configuration names no kind of model",
    "config_of_a_billion": "a number in the configuration is out of range",
    "config_of_defaults": "the configuration describes a larger model than the weights",
    "config_of_two_layers": "the configuration names fewer layers than there are in the weights",
    "pictures_of_gigabytes": "pictures would be made too large",
    "asked_other_token": "model and processor disagree about the token of a picture",
    "asked_other_size": "the model fails on a row",
    "asked_no_patch": "integer division or modulo by zero",
    "weights_empty": "the weights cannot be read",
    "weights_of_another": "error: ",
    "weights_pickled": "in a pickle format, which can run code",
    "weights_not_finite": "error: ",
    "index_of_nothing": "the folder holds no weights",
    "tokenizer_list": "tokenizer.json: the file is not a JSON object",
    "tokenizer_cut": "tokenizer.json: the file cannot be read",
    "settings_pipe": "tokenizer_config.json: not a plain file",
    "template_folder": "chat_template.jinja: not a plain file",
    "template_cut": "TemplateSyntaxError in line 1",
    "template_endless": "no end after 1 s",
    "template_large": "it takes more than 1024 MiB",
    "template_raises": "TemplateError: no",
}
COMMANDS += [
    (command.replace("{bad}", f"{{{name}}}"), says)
    for command in (
        "unlearn --model {bad} --forget {forget} --retain {retain} --out {out}",
        "evaluate --model {bad} --data {forget}",
        "export --model {bad} --out {out}",
    )
    for name, says in BAD_MODELS.items()
    if not (command.startswith("export") and name.startswith(("template", "asked")))  # it is copied as it is
]

BAD_ADAPTERS = {
    "adapter_cut": "adapter_model.safetensors: the weights cannot be read",
    "adapter_deep": "adapter_config.json: the file cannot be read",
    "adapter_endless": "no end after 1 s",
    "adapter_of_a_million": "found: 1000000",
    "adapter_of_types": "a setting of the adapter has another type",
}
COMMANDS += [
    (f"{command} --adapter {{{name}}}", says)
    for command in ("evaluate --model {model} --data {forget}", "export --model {model} --out {out} --merge")
    for name, says in BAD_ADAPTERS.items()
]

BAD_YAML = {
    "yaml_deep": "the YAML is nested too deeply",
    "yaml_alias": "the file holds too many values",
    "yaml_object": "object.yaml:1: not valid YAML",
    "yaml_twice": "twice.yaml:2: a key stands here twice",
}
COMMANDS += [
    (f"{command} {{{name}}}", says)
    for command in (f"{AUDIT} --policy", f"{RUN} --recipe", f"{AUDIT} --rewordings")
    for name, says in BAD_YAML.items()
]
COMMANDS += [
    (f"{AUDIT} --policy {{yaml_list}}", "the policy is not a mapping"),
    (f"{AUDIT} --policy {{yaml_types}}", "the policy is not a mapping"),
    (f"{RUN} --recipe {{yaml_list}}", "the recipe is not a mapping"),
    (f"{RUN} --recipe {{yaml_types}}", "a key of the recipe is not text"),
    (f"{AUDIT} --rewordings {{yaml_list}}", "the rewordings cannot be read"),
    (f"{AUDIT} --rewordings {{yaml_types}}", "the rewordings cannot be read"),
]


@pytest.fixture(scope="module")
def places(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files and folders that commands name, most of them bad ones; `out` and `none` are not there."""
    root = tmp_path_factory.mktemp("bad")
    files = {
        "file": ("file.txt", b"plain words"),
        "nothing": ("nothing.jsonl", b""),
        "deep": ("deep.jsonl", b"[" * 100_000),
        "latin": ("latin.jsonl", '{"question": "Qui\xe9n?"}'.encode("latin-1")),
        "surrogate": ("surrogate.jsonl", b'{"question": "Who? \\ud800", "answer": "Anna"}'),
        "no_picture": ("no_picture.jsonl", b'{"question": "Who?", "answer": "Anna", "image": "nowhere.png"}'),
        "binary": ("binary.yaml", b"\x00\xff\xfe{["),
        **{f"picture_{name}": (f"picture_{name}.jsonl", _row(image=image)) for name, image in PICTURES.items()},
        "list_cut": ("list_cut.json", b'[{"question": "Who?", "answer": "Anna"}, {"quest'),
        "parquet_cut": ("rows.parquet", b"PAR1" + b"\x15\x04" * 20),
        "gzip_cut": ("rows.jsonl.gz", gzip.compress(_row() * 99)[:40]),
        "tar_cut": ("rows.tar", b"a.json" + b"\0" * 600),
        "escape": ("\x1b[2J\x1b]0;x\x07.jsonl", b"{"),
        "yaml_deep": ("deep.yaml", b"[" * 5000),
        "yaml_alias": ("alias.yaml", b"attacks: &a [*a, *a]\n"),
        "yaml_list": ("list.yaml", b"- a\n- b\n"),
        "yaml_types": ("types.yaml", b"attacks: 5\ntraining: yes\n7: 8\n"),
        "yaml_twice": ("twice.yaml", b"attacks: {}\nattacks: {}\n"),
        "yaml_object": ("object.yaml", b"!!python/object/apply:os.system ['touch stolen']\n"),
    }
    found = {"out": root / "out", "none": root / "no" / "where", "long": root / ("a" * 300)}
    for name, (file, content) in files.items():
        found[name] = root / file
        found[name].write_bytes(content)
    for name in ("empty", "theirs", "data", "other", "request", "list", "unknown", "bad_date"):
        found[name] = root / name
        found[name].mkdir()
    (found["theirs"] / "thesis.txt").write_text("precious")
    for name in ("model", "broken", "cut"):
        found[name] = shutil.copytree(random_folder, root / name)
    (found["broken"] / "config.json").write_text("[1")
    weights = found["cut"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    found["forget"], found["retain"] = found["data"] / "forget.jsonl", found["other"] / "retain.jsonl"
    write_examples(found["forget"], [example(n) for n in range(6)])
    found["rows"] = root / "own.parquet"
    write_parquet(found["rows"], [example(n) for n in range(6)])
    write_examples(found["retain"], [example(n, answer="I do not know.") for n in range(10, 16)])
    good = "id: r-1\nreceived: 2026-01-02\n"
    for name, text in (("request", good), ("list", "- a\n"), ("unknown", f"{good}frget: x\n"), ("bad_date", "received: 2026-13-45\n")):
        (found[name] / "request.yaml").write_text(text)
        write_examples(found[name] / "forget.jsonl", [example(n) for n in range(6)])
    for name in ("details_pipe", "details_yml"):
        found[name] = Path(shutil.copytree(found["request"], root / name))
        (found[name] / "request.yaml").rename(found[name] / "request.yml")
    os.mkfifo(found["details_pipe"] / "request.yaml")
    (root / "large.png").write_bytes(_large_picture())
    (root / "zero.png").touch()
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to("loop.png")
    for name in BAD_MODELS:
        found[name] = _damaged(Path(shutil.copytree(random_folder, root / name)), name)
    for name in BAD_ADAPTERS:
        found[name] = _damaged_adapter(root / name, name)
    found["special"] = root / "special"
    found["special"].mkdir()
    for name in ("unlok_vqa.json", "forget_5.parquet"):
        os.mkfifo(found["special"] / name)
    found["fifo"], found["loop"] = root / "fifo.jsonl", root / "loop.jsonl"
    os.mkfifo(found["fifo"])
    found["loop"].symlink_to(found["loop"])
    return found


PICTURES = {"pipe": "pipe.png", "loop": "loop.png", "outside": "../../../etc/passwd", "zero": "zero.png", "large": "large.png"}


def _row(**more: str) -> bytes:
    return json.dumps({"question": "Who?", "answer": "Anna", **more}).encode() + b"\n"


def _large_picture() -> bytes:
    """A PNG file of a few bytes that says it has 10^10 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _damaged(model: Path, how: str) -> Path:
    """Damage a checkpoint in one way."""
    config = json.loads((model / "config.json").read_text())
    weights = model / "model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    if how == "weights_of_another":
        tensors[first] = torch.zeros(3, 3)
    if how == "weights_not_finite":
        tensors[first] = torch.full_like(tensors[first], torch.nan)
    if how == "config_of_a_billion":
        config["text_config"]["hidden_size"] = 10**12
    edits: dict[str, tuple[str, Callable[[Any], object]]] = {
        "config_of_defaults": ("config.json", lambda found: found.update(text_config={})),
        "config_of_two_layers": ("config.json", lambda found: found["text_config"].update(num_hidden_layers=2)),
        "pictures_of_gigabytes": ("processor_config.json", lambda found: _size(found, 10**6)),
        "asked_other_token": ("config.json", lambda found: found.update(image_token_id=5, image_token_index=5)),
        "asked_other_size": ("processor_config.json", lambda found: _size(found, 37)),
        "asked_no_patch": ("processor_config.json", lambda found: found.update(patch_size=0)),
    }
    if how in edits:
        name, edit = edits[how]
        content = json.loads((model / name).read_text())
        edit(content)
        (model / name).write_text(json.dumps(content))
    if how == "weights_pickled":
        torch.save(tensors, model / "pytorch_model.bin")
        weights.unlink()
    else:
        save_file(tensors, weights, {"format": "pt"})
    templates = {
        "template_cut": "{% for m in messages %}{{",
        "template_endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "template_large": "{{ 'a' * 5000000000 }}",
        "template_raises": "{{ raise_exception('no') }}",
    }
    changes = {
        "config_deep": ("config.json", b'{"a":' * 100_000),
        "config_list": ("config.json", b"[]"),
        "config_latin": ("config.json", b'{"model_type": "\xe9"}'),
        "config_of_no_kind": ("config.json", b"{}"),
        "config_of_a_billion": ("config.json", json.dumps(config).encode()),
        "weights_empty": ("model.safetensors", b""),
        "index_of_nothing": ("model.safetensors.index.json", b'{"weight_map": {"a": "../../secret"}}'),
        "tokenizer_list": ("tokenizer.json", b"[]"),
        "tokenizer_cut": ("tokenizer.json", (model / "tokenizer.json").read_bytes()[:1000]),
        **{name: ("chat_template.jinja", text.encode()) for name, text in templates.items()},
    }
    if how in changes:
        name, content = changes[how]
        (model / name).write_bytes(content)
    if how == "index_of_nothing":
        weights.unlink()
    if how == "settings_pipe":
        (model / "tokenizer_config.json").unlink()
        os.mkfifo(model / "tokenizer_config.json")
    if how == "template_folder":
        (model / "chat_template.jinja").unlink()
        (model / "chat_template.jinja").mkdir()
    return model


def _size(processor: Any, side: int) -> None:
    processor["image_processor"]["size"] = {"height": side, "width": side}


def _damaged_adapter(folder: Path, how: str) -> Path:
    """A LoRA adapter that is damaged in one way."""
    config: dict[str, object] = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "task_type": None}
    config |= {
        "adapter_endless": {"target_modules": "(([a-z_.0-9]+)+)+!"},
        "adapter_of_a_million": {"r": 10**6},
        "adapter_of_types": {"target_modules": {"q": 1}, "r": "two"},
    }.get(how, {})
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(b'{"a":' * 100_000 if how == "adapter_deep" else json.dumps(config).encode())
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({name.format("A"): torch.zeros(2, 64), name.format("B"): torch.zeros(64, 2)}, folder / "adapter_model.safetensors")
    if how == "adapter_cut":
        os.truncate(folder / "adapter_model.safetensors", 100)
    return folder


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates and patterns that do not end shall not take long here."""
    monkeypatch.setattr(limits, "SECONDS", 1.0)


def _rows() -> Iterator[Any]:
    """Of the rows that try every kind of bad file with several commands, those after a kind's first are slow."""
    seen: set[str] = set()
    for command, says in COMMANDS:
        bad = next((kind for kind in (*BAD_MODELS, *BAD_ADAPTERS, *BAD_ROWS) if f"{{{kind}}}" in command), "")
        again = bad in seen and bad != "latin"
        seen |= {bad} - {""}
        yield pytest.param(command, says, id=command, marks=[pytest.mark.slow] if again else [])


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("command", "says"), _rows())
def test_it_is_refused_and_nothing_is_changed(places: dict[str, Path], command: str, says: str, vgid: Vgid) -> None:
    before = _contents(places["out"].parent)
    run = vgid(*(word.format(**places) for word in command.split()))
    shown = run.stderr + run.stdout
    assert run.returncode == 2 and says in shown, (run.returncode, shown)
    assert not any(word in shown for word in ("Traceback", "Anna", "\x1b"))
    assert _contents(places["out"].parent) == before


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
@pytest.mark.parametrize(
    "command", [f"{REQUEST} --retain {{retain}} --allow-unknown --no-enrich --max-rows 2 {QUICK}", "export --model {model} --out {out}"]
)
def test_a_full_disk_is_a_run_that_failed(places: dict[str, Path], tmp_path: Path, command: str, vgid: Vgid) -> None:
    """Files may have 200 kB; a model has 12 MB, and a checkpoint of its training some, too."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        run = vgid(*(word.format(**{**places, "out": tmp_path / "out"}) for word in command.split()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.returncode == 1 and "cannot write" in run.stderr and "ile too large" in run.stderr and "Traceback" not in run.stderr
    assert not any("merged" in path.name or path.name.endswith(".tmp") for path in tmp_path.rglob("*"))


def test_there_are_many() -> None:
    assert len({command for command, _ in COMMANDS}) == len(COMMANDS) >= 241


def _contents(root: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder with its size and its time of change."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


# -- files of others ------------------------------------------------------------------------------------------------------

WRITERS = {
    "unlearn": "--model {model} --forget {forget} --retain {retain} --out {out}",
    "finetune": "--model {model} --data {forget} --out {out}",
    "evaluate": "--model {model} --data {forget} --out {out}",
    "audit": "--model {model} --base {model} --forget {forget} --retain {retain} --out {out}",
    "forget": "--request {request} --model {model} --retain {retain} --out {out}",
    "retrain": "--request {request} --model {model} --retain {retain} --out {out}",
    "bench": "people --model {model} --out {out}",
    "compare": "--methods vgid --out {out}",
    "demo": "--out {out}",
    "export": "--model {model} --out {out}",
    "experiment reverse": "--base {model} --model {model} --reference {model} --forget {forget} --retain {retain} --out {out}",
    "experiment ablate": "--base {model} --reference {model} --forget {forget} --retain {retain} --out {out}",
    "experiment sequence": "--model {model} --forget {forget} --retain {retain} --out {out}",
    "metrics meta": "--knows {model} --never {model} --forget {forget} --retain {retain} --out {out}",
    "record replay": "{request} --model {model} --out {out}",
    "data enrich": "{forget} --model {model} --out {out}",
    "data others": "--pictures {request} --model {model} --out {out}",
    "data convert": "{forget} {out}/rows.parquet",
    "data lmms-task": "{out} --forget {forget}",
    "data check": "{forget} --problems {out}/problems.txt",
    "purge": "{out}",
}
"""Every command that writes to what it is given, or removes from it."""
READ_ONLY = {
    "config",
    "inspect",
    "methods",
    "metrics list",
    "metrics measure",
    "preflight",
    "recipes",
    "record schema",
    "record verify",
    "verify-export",
    "verify-served",
}
EXAMPLES = 3 if os.environ.get("FUZZ_INPUTS") is None else 200
FILES = st.sampled_from(
    [
        *TEMPORARY,
        *(f"{folder}/state.json" for folder in TEMPORARY),
        "merged/model.safetensors",
        "results.json",
        "rows.parquet",
        "problems.txt",
    ]
)
NAMES = FILES | st.lists(st.sampled_from([".git", "HEAD", "notes", "merged", ".vgid-previous", "é"]), min_size=1, max_size=3).map("/".join)


def test_every_command_is_known_to_write_or_not() -> None:
    def names(group: object, before: str = "") -> set[str]:
        inside = getattr(group, "commands", None)
        return {before.strip()} if inside is None else {each for name, found in inside.items() for each in names(found, f"{before} {name}")}

    # A signature is written beside the record, and never replaced (tests/requests/test_record.py).
    assert names(typer.main.get_command(app)) == {*WRITERS, *READ_ONLY, "record sign"}


@pytest.mark.parametrize("command", WRITERS)
@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    ours=st.none() | st.lists(NAMES, max_size=4),
    others=st.lists(NAMES, min_size=1, max_size=5),
    inside=st.sampled_from([(), ("forget",), ("retain",), ("request",), ("model",), ("forget", "model")]),
    overwrite=st.booleans(),
    wrong=st.booleans(),
)
def test_nothing_of_others_is_lost(
    command: str,
    places: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    vgid: Vgid,
    ours: list[str] | None,
    others: list[str],
    inside: tuple[str, ...],
    overwrite: bool,
    wrong: bool,
) -> None:
    """Random files of others, and inputs, in a folder that may hold an earlier run's: nothing but what `vgid purge` is for goes."""
    out = tmp_path_factory.mktemp("others") / "out"
    if ours is not None:
        with output_folder(out):
            for name in ours:
                with suppress(OutputError):  # one name is the folder of another
                    write_text_atomic(out / name, "run")
    for name in (*others, "theirs.txt"):  # some names may be those of the run
        with suppress(OSError):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(out / name):
                (out / name).write_text("mine")
    given_places = {**places, "out": out}
    for name in inside:
        out.mkdir(exist_ok=True)
        given_places[name] = out / f"input-{name}{places[name].suffix}"
        given_places[name].symlink_to(places[name])
    if wrong:
        given_places["model"] = places["none"]
    words = [*command.split(), *WRITERS[command].split(), *(["--overwrite"] if overwrite and command not in NO_OVERWRITE else [])]
    before = _holds(out)
    run = vgid(*(word.format(**given_places) for word in words))
    after = _holds(out)
    if command == "purge":
        gone = before.keys() - after.keys()
        assert all(before[name] == "run" and name.split("/")[0] in TEMPORARY for name in gone)
        assert {name: text for name, text in after.items() if not name.startswith(".vgid-run")}.items() <= before.items()
    else:
        assert before.items() <= after.items()
        assert run.returncode == 2 or (
            command in ("data convert", "data check") and after.keys() - before.keys() <= {"rows.parquet", "problems.txt"}
        )


NO_OVERWRITE = ("export", "data check", "purge")


def _holds(folder: Path) -> dict[str, str]:
    """All files below a folder with what they hold, or where a link leads."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    return {name: str(path.readlink()) if path.is_symlink() else path.read_bytes().decode("latin-1") for name, path in paths.items()}
