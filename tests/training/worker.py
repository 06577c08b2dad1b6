"""One run in a process of its own, as a launcher or a test starts it; writes the curves it drew.

`worker.py MODEL OUT [a.b=c ...] [stop] [resume] [examine]`: with `stop`, the last of the processes gets a signal after the first step; with
`examine`, the run's exports are asked and verified in shards, and the first process prints what was found.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.conftest import example
from vgid import processes
from vgid.config import load_config
from vgid.data.example import Example
from vgid.deployment import verify_command
from vgid.progress import Stages
from vgid.results import evaluate_models
from vgid.run_folder import output_folder
from vgid.training.fit import Fitted
from vgid.unlearning import left_to_go_on, load_for, train_and_export


def rows(first: int, count: int, answer: str) -> list[Example]:
    """Rows with and without pictures, each with a question of its own."""
    plain = [example(n, image=n % 3 != 0, answer=answer) for n in range(first, first + count)]
    return [replace(row, question=f"{row.question} {row.id}") for row in plain]


FORGET, RETAIN = rows(0, 8, "This is Anna Keller."), rows(20, 14, "She lives in Oslo.")
SETTINGS = ["method.replay=null", "training.steps=4", "training.forget_batch=3", "training.retain_batch=5", "training.warmup_steps=0"]
SETTINGS += ["method.answers=[recorded,teacher,student]", "validation.every=2", "validation.share=0.3", "training.checkpoint_every=2"]


def train_in_folder(*given: Any, out: Path | None = None, resume: bool = False, **options: Any) -> Fitted:
    """`train_and_export` in a run's folder, as `unlearn` and `finetune` call it."""
    with output_folder(out, keep=resume, goes_on=lambda: left_to_go_on(out)):
        return train_and_export(*given, out=out, resume=resume, **options)


def main(model: str, out: str, *words: str) -> None:
    torch.set_num_threads(1)
    config = load_config(None, [*SETTINGS, *(word for word in words if "=" in word)])

    def progress(done: int, total: int) -> None:
        if "stop" in words and done == 1 and processes.rank() == processes.count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    processes.start()
    fitted = train_and_export(load_for(model, config), FORGET, RETAIN, config, out=Path(out), progress=progress, resume="resume" in words)
    if processes.rank() == 0:
        Path(out, "curves.json").write_text(json.dumps(fitted.curves))
    if "examine" in words:
        found = examined(model, Path(out))
        if processes.rank() == 0:
            print(json.dumps(found))


def examined(base: str, out: Path) -> dict[str, Any]:
    """What `vgid evaluate` says of base and adapter and of the merged model, and `vgid verify-export` of both exports."""
    models = {"base": (base, out / "adapter"), "unlearned": (str(out / "merged"), None)}
    asked = evaluate_models(models, {"forget": FORGET, "retain": RETAIN}, stages=Stages(quiet=True), shard=True)
    return {"splits": asked["splits"], "verified": verify_command(out, base, [], shard=True)}


if __name__ == "__main__":
    main(*sys.argv[1:])
