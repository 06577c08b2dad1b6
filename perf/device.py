"""All that has to be measured on a GPU, by one command, within eight minutes: `python perf/device.py --out FOLDER`.

Each part is a process of its own with its own time limit. It prints as it goes and writes its figures at once, so that a run that is cut
off still tells what it measured: `FOLDER/device.json` holds all parts, finished or not. `--shape tiny --device cpu` runs all of it on a
machine without a GPU, to see that it works.

| part | what it measures |
|---|---|
| `checkpoint` | a checkpoint with random weights on disk, and rows whose answers are what it says |
| `unlearn-40` | `vgid unlearn` in the memory of a card of 40 GB, up to a verified export |
| `default` | a default step of 4 + 16 rows with a picture each, and what the GPU does in it; answers to 200 questions; each term off |
| `step` | an epoch the released way, ours with its settings, and our default (perf/step.py) |
| `unlearn-24-4bit`, `unlearn-80` | `vgid unlearn` on a base in 4 bits in 24 GB; the same in 80 GB, killed and resumed |
| `audit` | one quick audit, seconds for each attack |
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TOTAL_S = 480
"""All parts together."""
LIMITS_S = {
    "checkpoint": 75,
    "unlearn-40": 90,
    "default": 150,
    "step": 120,
    "unlearn-24-4bit": 90,
    "unlearn-80": 130,
    "audit": 120,
}
"""Seconds for each part, at most."""
MEMORY_GB = {"unlearn-40": 39.5, "unlearn-24-4bit": 23.5, "unlearn-80": 79.0}
"""What a run may take of the device, as cards of 80, 40 and 24 GB have it."""
STEPS = 6
"""Optimizer steps of a run: enough to write, kill and resume; nothing is forgotten in so few."""
ENOUGH = "method.replay.thin=0"
"""As with a full retain set: what the base is asked where retain data is thin takes minutes before the first step, and no time in it."""
ROWS_OFF = ("method.self_distilled=0", "method.augment=0", "method.replay=null")
"""Rows that are made before the first step; a step has as many rows without them."""
TERMS_OFF = {
    "uncompiled": ROWS_OFF,
    "adversary off": ("method.adversary=null", *ROWS_OFF),
    "hidden states off": ("method.hidden_state_weight=0", *ROWS_OFF),
    "both off": ("method.adversary=null", "method.hidden_state_weight=0", *ROWS_OFF),
    "names not masked": ("method.mask_names=false", *ROWS_OFF),
    "guess penalty off": ("method.guess_penalty=0", *ROWS_OFF),
}
"""What an uncompiled step takes, and what it takes without each of its own terms."""


class Figures:
    """Figures of one part, written to its file whenever one is added."""

    def __init__(self, path: Path) -> None:
        self.path, self.values = path, {}

    def add(self, **figures: Any) -> None:
        """Print figures and write all of them so far."""
        self.values |= figures
        for name, value in figures.items():
            print(f"  {name}: {json.dumps(value) if not isinstance(value, float) else round(value, 4)}", flush=True)
        self.path.write_text(json.dumps(self.values, indent=2) + "\n", "utf-8")


# -- parts ----------------------------------------------------------------------------------------------------------------


def part_step(options: argparse.Namespace, figures: Figures) -> None:
    """perf/step.py at the given shape."""
    import step

    tiny = options.shape == "tiny"
    size = {"images": 1, "questions": 2, "epochs": 1} if tiny else {"images": 2, "questions": 5, "epochs": 5}
    found = {name: getattr(options, name) for name in ("shape", "image_tokens", "device", "compile")}
    step.run(argparse.Namespace(**found, **size), figures.add)


def part_default(options: argparse.Namespace, figures: Figures) -> None:
    """Seconds and memory of a default step, and what the device does in it; answers a second; then the step term by term."""
    from common import build, forget_peak, peak_mb
    from torch.profiler import ProfilerActivity, profile

    loaded = build(options.shape, options.image_tokens, options.device, dtype(options))
    profiler = profile(activities=[ProfilerActivity.CUDA if options.device != "cpu" else ProfilerActivity.CPU])
    steps = Steps(figures)
    steps.after = {5: profiler.start, 6: profiler.stop}
    for name, count in (("default", 6), ("compiled", 10)) if options.compile else (("default", 6),):
        forget_peak(options.device)
        fitted = steps.fit(loaded, count, (ENOUGH, f"training.torch_compile={str(name == 'compiled').lower()}"), f"{name}_")
        plain = statistics.median(steps.seconds[count // 2 - 1 : count - 2])
        figures.add(**{name: {"step_s": plain, "peak_mb": peak_mb(options.device), "automatic": dict(fitted.automatic)}})
        loaded = replace(loaded, model=fitted.loaded.model.unload())
        if name == "default":
            figures.add(**profiled(profiler, plain, on_gpu=options.device != "cpu"))
            answer(options, loaded, figures)
        steps.after = {}
    for name, overrides in TERMS_OFF.items():
        forget_peak(options.device)
        fitted = steps.fit(loaded, 4, ("training.torch_compile=false", *overrides), f"{name}, ")
        figures.add(**{name: {"step_s": statistics.median(steps.seconds), "peak_mb": peak_mb(options.device)}})
        loaded = replace(loaded, model=fitted.loaded.model.unload())


def answer(options: argparse.Namespace, loaded: Any, figures: Figures) -> None:
    """Answers a second, in batches and one by one."""
    from common import measure, rows_about

    from vgid.evaluation.generation import generate

    rows, alone = (rows_about(2, 2, 1), 2) if options.shape == "tiny" else (rows_about(40, 5, 1), 4)
    generate(loaded, rows[:2], max_new_tokens=2)
    together = measure(lambda: generate(loaded, rows), 1, options.device)
    figures.add(questions=len(rows), questions_per_s=len(rows) / together.median)
    single = measure(lambda: [generate(loaded, [row]) for row in rows[:alone]], 1, options.device)
    figures.add(one_by_one_per_s=alone / single.median, speedup=len(rows) / together.median / (alone / single.median))


def profiled(profiler: Any, step_s: float, *, on_gpu: bool) -> dict[str, Any]:
    """What the device did in a step that took so long without the profiler, which slows the host, not the device."""
    on_device = sorted((e.time_range.start, e.time_range.end) for e in profiler.events() if "cuda" in str(e.device_type).lower())
    names = Counter(event.name for event in profiler.events())
    busy = covered(on_device) / 1e6
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    top = sorted(profiler.key_averages(), key=lambda each: -getattr(each, key))[:15]
    return {
        "busy_s": busy,
        "busy_share": busy / step_s,
        "launches": sum(count for name, count in names.items() if "LaunchKernel" in name),
        "waits": {name: count for name, count in names.items() if "Synchronize" in name},
        "top_operations_ms": {each.key[:80]: getattr(each, key) / 1000 for each in top},
    }


def part_checkpoint(options: argparse.Namespace, figures: Figures) -> None:
    """A checkpoint with random weights, and rows that it knows: their answers are what it says."""
    import torch
    from common import build, rows_about

    from vgid.data.writing import write_examples
    from vgid.evaluation.generation import generate
    from vgid.models.export import save_checkpoint

    loaded = build(options.shape, options.image_tokens, options.device, dtype(options))
    head, words = loaded.model.get_output_embeddings().weight, len(loaded.processor.tokenizer)
    with torch.no_grad():
        head[words:] = 0  # tokens that the tokenizer has no text for are never the likeliest
    started = time.perf_counter()
    save_checkpoint(loaded.model, loaded.processor, options.out / "model")
    figures.add(save_s=time.perf_counter() - started)
    counts = {"forget": (4, 4), "retain": (16, 2)} if options.shape == "tiny" else {"forget": (8, 4), "retain": (32, 2)}
    for name, (images, questions) in counts.items():
        rows = rows_about(images, questions, 1 if name == "forget" else 2)
        said = generate(loaded, rows, max_new_tokens=8)
        known = [replace(row, answer=text, keywords=(text,)) for row, text in zip(rows, said, strict=True) if len(text) > 2]
        write_examples(options.out / f"{name}.jsonl", known)
        figures.add(**{f"{name}_rows": len(known)})


def part_unlearn(options: argparse.Namespace, figures: Figures) -> None:
    """A run under a limit of memory; `unlearn-80` is killed once and resumed."""
    name, out = options.part, options.out / options.part
    settings = [f"training.steps={STEPS}", "training.checkpoint_every=2", "validation.every=0", ENOUGH]
    settings += ["adapter.quantise=4bit"] if name.endswith("4bit") else []
    command: list[Any] = ["unlearn", "--model", options.out / "model", "--forget", options.out / "forget.jsonl"]
    command += ["--retain", options.out / "retain.jsonl", "--out", out, "--max-rows", "8", "--allow-unknown"]
    command += [argument for setting in settings for argument in ("--set", setting)]
    if name == "unlearn-80":
        started = time.perf_counter()
        killed = watch(
            options, MEMORY_GB[name], command, stop=lambda: any((out / "checkpoint").glob("*")) and time.perf_counter() - started > 1
        )
        figures.add(killed=killed["code"] == -signal.SIGKILL, until_killed_s=killed["seconds"])
        command += ["--resume"]
    marks: dict[str, float] = {}
    done = watch(options, MEMORY_GB[name], command, marks=marks, files={each: out / each for each in ("adapter", "merged", "results.json")})
    figures.add(**{key: done[key] for key in ("code", "seconds", "peak_mb", "message")}, memory_gb=MEMORY_GB[name])
    figures.add(verified=(out / "merged").is_dir() and not list(out.rglob("VERIFICATION-FAILED.json")))
    if "results.json" in marks and "merged" in marks and "adapter" in marks:
        figures.add(writing_s=marks["merged"] - marks["adapter"], end_beyond_writing_s=marks["results.json"] - marks["merged"])
    if (out / "results.json").is_file():
        found = json.loads((out / "results.json").read_text("utf-8"))
        figures.add(stages_s=found["seconds"], outcome=found.get("outcome"))


def part_audit(options: argparse.Namespace, figures: Figures) -> None:
    """One quick audit of what the first run wrote."""
    out = options.out / "audit"
    command: list[Any] = ["audit", "--model", options.out / "unlearn-80" / "merged", "--base", options.out / "model", "--out", out]
    command += ["--forget", options.out / "forget.jsonl", "--retain", options.out / "retain.jsonl", "--max-rows", "32"]
    done = watch(options, MEMORY_GB["unlearn-80"], command)
    figures.add(**{key: done[key] for key in ("code", "seconds", "peak_mb", "message")})
    if (out / "audit.json").is_file():
        found = json.loads((out / "audit.json").read_text("utf-8"))
        seconds = {name: each.get("seconds") for name, each in found["attacks"].items()}
        figures.add(seconds_by_attack=seconds, known=found["knowledge"]["known"])


PARTS: dict[str, Callable[[argparse.Namespace, Figures], None]] = {
    "checkpoint": part_checkpoint,
    "unlearn-40": part_unlearn,
    "default": part_default,
    "step": part_step,
    "unlearn-24-4bit": part_unlearn,
    "unlearn-80": part_unlearn,
    "audit": part_audit,
}


# -- what they share ------------------------------------------------------------------------------------------------------


class Steps:
    """Times the steps of a run of `vgid.training.fit`, which decides precision, checkpointing and all else as for users.

    Args:
        figures: each step is added as it ends.
    """

    def __init__(self, figures: Figures) -> None:
        from common import rows_about

        self.figures, self.times, self.name = figures, [], ""
        self.after: dict[int, Callable[[], Any]] = {}
        """Functions to call when so many steps are done."""
        self.forget, self.retain = rows_about(9, 1, 1), rows_about(36, 1, 2)

    def fit(self, loaded: Any, steps: int, overrides: tuple[str, ...], name: str) -> Any:
        """Run some steps of 4 forget and 16 retain rows, no two about the same picture."""
        from vgid.config import resolve
        from vgid.training.fit import fit

        self.name, self.times = name, []
        self.started = time.perf_counter()
        return fit(
            loaded,
            self.forget,
            self.retain,
            resolve(None, [f"training.steps={steps}", "validation.every=0", *overrides]),
            progress=self._tick,
        )

    def _tick(self, done: int, _: int) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == 1:
            self.figures.add(**{f"{self.name}until_first_step_done_s": self.times[0] - self.started})
        else:
            self.figures.add(**{f"{self.name}steps_s": self.seconds})
        if done in self.after:
            self.after[done]()
            self.times[-1] = time.perf_counter()  # a profiler takes its time too

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first."""
        return [b - a for a, b in itertools.pairwise(self.times)]


def dtype(options: argparse.Namespace) -> Any:
    """bf16 at 7B, as checkpoints have it."""
    import torch

    return torch.bfloat16 if options.shape == "llava-7b" else torch.float32


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals that are sorted by their start."""
    total, end = 0.0, float("-inf")
    for start, stop in intervals:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def forked(work: Callable[..., None], *given: Any, log: Path | None = None) -> BaseProcess:
    """Start work in a process of its own.

    It is forked, with all that was imported: on a slow disk importing takes a third of a minute. Where an import has touched the device, as
    that of bitsandbytes does, a forked process could not use it, so that a new one is started.
    """
    import torch

    context = multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")
    process = context.Process(target=in_group, args=(work, given, log))
    process.start()
    return process


def in_group(work: Callable[..., None], given: tuple[Any, ...], log: Path | None) -> None:
    """Do work as the first process of its own group, and write what it prints to a file."""
    os.setsid()
    if log is not None:
        with log.open("ab") as written:
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
    work(*given)


def watch(
    options: argparse.Namespace,
    memory_gb: float,
    arguments: list[Any],
    *,
    stop: Callable[[], bool] | None = None,
    marks: dict[str, float] | None = None,
    files: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Run a command of vgid, note when files appear, and kill it where `stop` says so; gives exit code, seconds, its peak and last line."""
    started = time.perf_counter()
    last, peak = "", None
    log = Path(f"{files['results.json'].parent if files else arguments[arguments.index('--out') + 1]}.log")
    process = forked(limited, memory_gb, options.device, [*map(str, arguments)], log=log)
    try:
        while process.is_alive():
            time.sleep(0.05)
            for name, file in (files or {}).items():
                if marks is not None and name not in marks and file.exists():
                    marks[name] = time.perf_counter() - started
            if stop is not None and stop():
                process.kill()
    finally:
        process.kill()
        process.join()
    for name, file in (files or {}).items():
        if marks is not None and name not in marks and file.exists():
            marks[name] = time.perf_counter() - started
    for line in log.read_text("utf-8", "replace").splitlines():
        if line.startswith("peak_mb "):
            peak = float(line.split()[1])
        elif line.strip():
            last = line.strip()
    return {"code": process.exitcode, "seconds": time.perf_counter() - started, "peak_mb": peak, "message": last[-300:]}


def limited(gigabytes: float, device: str, arguments: list[str]) -> None:
    """The command line of vgid in a process that may take so much of the device."""
    import torch

    from vgid.commands import main as vgid

    if device != "cpu":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
    sys.argv = ["vgid", *arguments]
    try:
        vgid()
    finally:
        if device != "cpu":
            print(f"peak_mb {torch.cuda.max_memory_reserved() / 2**20:.0f}", flush=True)


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Every part in a process of its own."""
    began, out = time.monotonic(), {}
    for name in options.parts or PARTS:
        left = options.patience * TOTAL_S - (time.monotonic() - began)
        limit = min(options.patience * LIMITS_S[name], left)
        file = options.out / f"{name}.json"
        print(f"{name} (at most {limit:.0f} s)", flush=True)
        if limit < 15:
            out[name] = {"state": "not started: no time was left"}
            continue
        started = time.monotonic()
        options.part = name
        process = forked(PARTS[name], options, Figures(file))
        try:
            process.join(limit)
            code = process.exitcode
        finally:
            kill_group(process.pid)
            process.join()
        state = "done" if code == 0 else "cut off" if code is None else f"failed with exit code {code}"
        figures = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        out[name] = {"state": state, "part_s": time.monotonic() - started, **figures}
        write(options, out)
    return out


def kill_group(pid: int) -> None:
    """Kill a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def write(options: argparse.Namespace, parts: dict[str, Any]) -> None:
    """All parts so far, with what they were measured with."""
    from sources import ANSWERS, AUDITS, STEP, write_result

    settings = {"shape": options.shape, "image_tokens": options.image_tokens, "device": options.device}
    measures = ("perf/device.py", "perf/step.py", "perf/common.py", "src/vgid/unlearning.py", "src/vgid/models/export.py")
    write_result(options.out / "device.json", {"parts": parts, "settings": settings}, *measures, *STEP, *ANSWERS, *AUDITS)


def main() -> None:
    """Parse, and run all parts, one part, or vgid under a limit of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("device"), help="folder for checkpoint, runs and figures; 60 GB at 7B")
    parser.add_argument("--shape", choices=("tiny", "smol", "llava-7b"), default="llava-7b")
    parser.add_argument("--image-tokens", type=int, default=None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="the decoder's layers; by default on a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies all limits of time")
    options = parser.parse_args()
    options.compile = options.device != "cpu" if options.compile is None else options.compile
    options.image_tokens = options.image_tokens or (576 if options.shape == "llava-7b" else 16)
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    import step  # noqa: F401  # with all that it needs, before the first process is forked; no device is touched by that

    import vgid.commands
    import vgid.training.fit  # noqa: F401

    parts = run_all(options)
    for name, each in parts.items():
        print(f"{name:<16} {each['state']}")


if __name__ == "__main__":
    main()
