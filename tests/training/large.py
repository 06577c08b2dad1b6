"""A run of a model that stands for one larger than a device, asked and verified anew.

Each process writes how much memory it took at most, beyond its start.

`large.py MODELS OUT`; `build(folder)` makes the models.
"""

import ctypes
import json
import sys
import threading
import time
from pathlib import Path

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from tests.training.worker import FORGET, RETAIN
from vgid import processes
from vgid.config import load_config
from vgid.models import merging
from vgid.synthetic.tiny import build_model, build_processor, build_tokenizer
from vgid.unlearning import load_for, train_and_export

LAYERS = 48
FILE_BYTES = 32 * 2**20
SETTINGS = ["training.shard=true", "training.steps=1", "training.forget_batch=1", "training.retain_batch=1", "validation.every=0"]
SETTINGS += ["method.self_distilled=0", "method.augment=0", "method.adversary=null", "adapter.rank=2"]
SETTINGS += ["training.gradient_checkpointing=true"]


def build(folder: Path) -> int:
    """Write a small model, for what the code itself takes, and a large one; give the bytes that it takes in float32, 460 MB.

    Its file is in bf16: a process that maps the pages of a file in its own precision would seem to need no memory.
    """
    tokenizer = build_tokenizer(["Who is this person? This is Anna Keller. She lives in Oslo."] * 20)
    config = build_model(tokenizer).config.to_dict()
    config["text_config"] |= {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": LAYERS, "head_dim": 64}
    config["text_config"]["num_key_value_heads"] = 6
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig.from_dict(config))
    model = model.to_empty(device="cpu")
    model.tie_weights()
    for name, parameter in model.named_parameters():
        torch.nn.init.ones_(parameter) if "norm" in name else torch.nn.init.normal_(parameter, std=0.02)
    size = sum(parameter.nbytes for parameter in model.parameters())
    for each, name in ((model.bfloat16(), "large"), (build_model(tokenizer), "small")):
        each.save_pretrained(folder / name)
        build_processor(tokenizer).save_pretrained(folder / name)
    return size


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("fordblks", "keepcost")]


LIBC = ctypes.CDLL(None)


def measurable() -> bool:
    """Whether the C library tells how much memory is in use."""
    return hasattr(LIBC, "mallinfo2")


def allocated() -> int:
    """Bytes of this process's own memory in use: neither pages of files nor what the C library has got back and keeps."""
    LIBC.mallinfo2.restype = _Mallinfo
    found: _Mallinfo = LIBC.mallinfo2()
    return found.uordblks + found.hblkhd  # type: ignore[no-any-return]


def main(models: str, out: str) -> None:
    torch.set_num_threads(1)
    merging.FILE_BYTES = FILE_BYTES
    processes.start()
    config = load_config(None, SETTINGS)

    def run(name: str) -> None:
        train_and_export(load_for(Path(models, name), config), FORGET[:2], RETAIN[:2], config, out=Path(out, name))

    run("small")
    start, peak, done = allocated(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, allocated() - start)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run("large")
    finally:
        done.set()
        watcher.join()
    Path(out, f"peak-{processes.rank()}.json").write_text(json.dumps(peak))


if __name__ == "__main__":
    main(*sys.argv[1:])
