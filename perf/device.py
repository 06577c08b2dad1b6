"""All that has to be measured on a GPU, by one command, within eight minutes: `python perf/device.py --out FOLDER`.

Each part is a process of its own with its own time limit. It prints as it goes and writes its figures at once, so that a run that is cut
off still tells what it measured: `FOLDER/device.json` holds all parts, finished or not. `--shape tiny --device cpu` runs all of it on a
machine without a GPU, to see that it works.

| part | what it measures |
|---|---|
| `step` | an epoch the released way, ours with its settings, and our default (perf/step.py) |
| `default` | a default step of 4 + 16 rows with a picture each, and without each of its terms; answers to 200 questions |
| `profile` | that step: share of the time the GPU works, launches, waits, top operations |
| `checkpoint` | a checkpoint with random weights on disk, and rows whose answers are what it says |
| `unlearn-80`, `unlearn-40`, `unlearn-24-4bit` | `vgid unlearn` under a limit of memory up to a verified export; the first is resumed |
| `audit` | one quick audit, seconds for each attack |
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

TOTAL_S = 480
"""All parts together."""
LIMITS_S = {
    "step": 110,
    "default": 100,
    "profile": 50,
    "checkpoint": 60,
    "unlearn-80": 130,
    "unlearn-40": 90,
    "unlearn-24-4bit": 90,
    "audit": 120,
}
"""Seconds for each part, at most."""
MEMORY_GB = {"unlearn-80": 79.0, "unlearn-40": 39.5, "unlearn-24-4bit": 23.5}
"""What a run may take of the device, as cards of 80, 40 and 24 GB have it."""
STEPS = 6
"""Optimizer steps of a run: enough to write, kill and resume; nothing is forgotten in so few."""
ROWS_OFF = ("method.self_distilled=0", "method.augment=0", "method.replay=null")
"""Rows that are made before the first step; a step has as many rows without them."""
TERMS_OFF = {
    "default": (),
    "adversary off": ("method.adversary=null", *ROWS_OFF),
    "hidden states off": ("method.hidden_state_weight=0", *ROWS_OFF),
    "both off": ("method.adversary=null", "method.hidden_state_weight=0", *ROWS_OFF),
    "names not masked": ("method.mask_names=false", *ROWS_OFF),
    "guess penalty off": ("method.guess_penalty=0", *ROWS_OFF),
}
"""The default step, and what it takes without each of its own terms."""
HERE = Path(__file__).resolve().parent


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
    out = options.out / "step-details.json"
    shape = ["--shape", options.shape, "--image-tokens", str(options.image_tokens), "--device", options.device]
    size = ["--images", "1", "--questions", "2", "--epochs", "1"] if options.shape == "tiny" else ["--epochs", "3"]
    subprocess.run([sys.executable, str(HERE / "step.py"), *shape, *size, "--json", str(out)], check=True)
    found = json.loads(out.read_text("utf-8"))
    names = ("speedup", "memory_ratio", "default_over_released", "loss_max_diff", "device")
    figures.add(**{name: found[name] for name in names}, flops_share=found["ours"]["flops_share"])
    figures.add(**{f"{name}_epoch_s": found[name]["epoch_s"] for name in ("released", "ours", "default")})


def part_default(options: argparse.Namespace, figures: Figures) -> None:
    """Seconds and memory of a default step, term by term; then answers a second."""
    from common import build, forget_peak, measure, peak_mb, rows_about

    from vgid.evaluation.generation import generate

    loaded = build(options.shape, options.image_tokens, options.device, dtype(options))
    steps = Steps()
    for name, overrides in TERMS_OFF.items():
        forget_peak(options.device)
        steps.times.clear()
        fitted = steps.fit(loaded, 6 if name == "default" else 4, overrides)
        found = {"step_s": steps.median, "steps_s": steps.seconds, "peak_mb": peak_mb(options.device)}
        figures.add(**{name: {**found, "before_first_s": steps.before, "automatic": dict(fitted.automatic)}})
        loaded = replace(loaded, model=fitted.loaded.model.unload())
    rows, alone = (rows_about(2, 2, 1), 2) if options.shape == "tiny" else (rows_about(40, 5, 1), 10)
    generate(loaded, rows[:2], max_new_tokens=2)
    together = measure(lambda: generate(loaded, rows), 1, options.device)
    single = measure(lambda: [generate(loaded, [row]) for row in rows[:alone]], 1, options.device)
    per_second = len(rows) / together.median, alone / single.median
    figures.add(questions=len(rows), questions_per_s=per_second[0], one_by_one_per_s=per_second[1], speedup=per_second[0] / per_second[1])


def part_profile(options: argparse.Namespace, figures: Figures) -> None:
    """What the device does in a default step."""
    from common import build
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device != "cpu" else [])]
    profiler = profile(activities=activities)
    steps = Steps({3: profiler.start, 4: profiler.stop})
    steps.fit(build(options.shape, options.image_tokens, options.device, dtype(options)), 5, ())
    on_device = sorted((e.time_range.start, e.time_range.end) for e in profiler.events() if "cuda" in str(e.device_type).lower())
    names = Counter(event.name for event in profiler.events())
    plain, busy = steps.seconds[1], covered(on_device) / 1e6  # the third step: the profiler slows the host, not the device
    key = "self_device_time_total" if options.device != "cpu" else "self_cpu_time_total"
    top = sorted(profiler.key_averages(), key=lambda each: -getattr(each, key))[:15]
    figures.add(
        step_s=plain,
        busy_s=busy,
        busy_share=busy / plain,
        launches=sum(count for name, count in names.items() if "LaunchKernel" in name),
        waits={name: count for name, count in names.items() if "Synchronize" in name},
        top_operations_ms={each.key[:80]: getattr(each, key) / 1000 for each in top},
    )


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
    counts = {"forget": (4, 4), "retain": (16, 2)} if options.shape == "tiny" else {"forget": (8, 4), "retain": (64, 2)}
    for name, (images, questions) in counts.items():
        rows = rows_about(images, questions, 1 if name == "forget" else 2)
        said = generate(loaded, rows, max_new_tokens=8)
        known = [replace(row, answer=text, keywords=(text,)) for row, text in zip(rows, said, strict=True) if len(text) > 2]
        write_examples(options.out / f"{name}.jsonl", known)
        figures.add(**{f"{name}_rows": len(known)})


def part_unlearn(options: argparse.Namespace, figures: Figures) -> None:
    """A run under a limit of memory; `unlearn-80` is killed once and resumed."""
    name, out = options.part, options.out / options.part
    settings = ["training.steps=6", "training.checkpoint_every=2", "validation.every=0"]
    settings += ["adapter.quantise=4bit"] if name.endswith("4bit") else []
    command = [sys.executable, __file__, "--limited", str(MEMORY_GB[name]), "--device", options.device, "--"]
    command += ["unlearn", "--model", options.out / "model", "--forget", options.out / "forget.jsonl"]
    command += ["--retain", options.out / "retain.jsonl", "--out", out, "--max-rows", "8", "--allow-unknown"]
    command += [argument for setting in settings for argument in ("--set", setting)]
    if name == "unlearn-80":
        started = time.perf_counter()
        killed = watch([*map(str, command)], stop=lambda: any((out / "checkpoint").glob("*")) and time.perf_counter() - started > 1)
        figures.add(killed=killed["code"] == -signal.SIGKILL, until_killed_s=killed["seconds"])
        command += ["--resume"]
    marks: dict[str, float] = {}
    done = watch([*map(str, command)], marks=marks, files={each: out / each for each in ("adapter", "merged", "results.json")})
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
    command = [sys.executable, __file__, "--limited", str(MEMORY_GB["unlearn-80"]), "--device", options.device, "--"]
    command += ["audit", "--model", options.out / "unlearn-80" / "merged", "--base", options.out / "model", "--out", out]
    command += ["--forget", options.out / "forget.jsonl", "--retain", options.out / "retain.jsonl", "--max-rows", "32"]
    done = watch([*map(str, command)])
    figures.add(**{key: done[key] for key in ("code", "seconds", "peak_mb", "message")})
    if (out / "audit.json").is_file():
        found = json.loads((out / "audit.json").read_text("utf-8"))
        seconds = {name: each.get("seconds") for name, each in found["attacks"].items()}
        figures.add(seconds_by_attack=seconds, known=found["knowledge"]["known"])


PARTS: dict[str, Callable[[argparse.Namespace, Figures], None]] = {
    "step": part_step,
    "default": part_default,
    "profile": part_profile,
    "checkpoint": part_checkpoint,
    **dict.fromkeys(MEMORY_GB, part_unlearn),
    "audit": part_audit,
}


# -- what they share ------------------------------------------------------------------------------------------------------


class Steps:
    """Times the steps of a run of `vgid.training.fit`, which decides precision, checkpointing and all else as for users.

    Args:
        after: functions to call when so many steps are done.
    """

    def __init__(self, after: dict[int, Callable[[], Any]] | None = None) -> None:
        from common import rows_about

        self.after, self.times = after or {}, []
        self.forget, self.retain = rows_about(9, 1, 1), rows_about(36, 1, 2)

    def fit(self, loaded: Any, steps: int, overrides: tuple[str, ...]) -> Any:
        """Run some steps of 4 forget and 16 retain rows, no two about the same picture."""
        from vgid.config import resolve
        from vgid.training.fit import fit

        settings = [f"training.steps={steps}", "validation.every=0", *overrides]
        self.started = time.perf_counter()
        return fit(loaded, self.forget, self.retain, resolve(None, settings), progress=self._tick)

    def _tick(self, done: int, _: int) -> None:
        self.times.append(time.perf_counter())
        if done in self.after:
            self.after[done]()

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first."""
        return [b - a for a, b in itertools.pairwise(self.times)]

    @property
    def median(self) -> float:
        """Of all steps but the first."""
        return statistics.median(self.seconds)

    @property
    def before(self) -> float:
        """From loading to the end of the first step."""
        return self.times[0] - self.started


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


def watch(
    command: list[str],
    *,
    stop: Callable[[], bool] | None = None,
    marks: dict[str, float] | None = None,
    files: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Run a command, note when files appear, and kill it where `stop` says so; gives exit code, seconds, its peak and its last line."""
    started = time.perf_counter()
    last, peak = "", None
    log = Path(f"{files['results.json'].parent if files else Path(command[command.index('--out') + 1])}.log")
    with log.open("ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.05)
                for name, file in (files or {}).items():
                    if marks is not None and name not in marks and file.exists():
                        marks[name] = time.perf_counter() - started
                if stop is not None and stop():
                    process.kill()
        finally:
            process.kill()
            code = process.wait()
    for name, file in (files or {}).items():
        if marks is not None and name not in marks and file.exists():
            marks[name] = time.perf_counter() - started
    for line in log.read_text("utf-8", "replace").splitlines():
        if line.startswith("peak_mb "):
            peak = float(line.split()[1])
        elif line.strip():
            last = line.strip()
    return {"code": code, "seconds": time.perf_counter() - started, "peak_mb": peak, "message": last[-300:]}


def limited(gigabytes: float, device: str, arguments: list[str]) -> None:
    """The command line of vgid in a process that may take so much of the device."""
    import atexit

    import torch

    if device != "cpu":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
        atexit.register(lambda: print(f"peak_mb {torch.cuda.max_memory_reserved() / 2**20:.0f}", flush=True))
    from vgid.commands import main as vgid

    sys.argv = ["vgid", *arguments]
    vgid()


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
        command = [sys.executable, __file__, "--part", name, "--out", options.out, "--shape", options.shape, "--device", options.device]
        started = time.monotonic()
        process = subprocess.Popen([*map(str, command), "--image-tokens", str(options.image_tokens)], start_new_session=True)
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            kill_group(process.pid)
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies all limits of time")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--limited", type=float, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limited:
        limited(options.limited, options.device, options.arguments)
        return
    options.image_tokens = options.image_tokens or (576 if options.shape == "llava-7b" else 16)
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        PARTS[options.part](options, Figures(options.out / f"{options.part}.json"))
        return
    parts = run_all(options)
    for name, each in parts.items():
        print(f"{name:<16} {each['state']}")


if __name__ == "__main__":
    main()
