"""The preflight on one screen."""

from __future__ import annotations

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from vgid.checks.knowledge import Knowledge
from vgid.checks.preflight import Preflight
from vgid.checks.rows import Side
from vgid.errors import VgidError

GOOD, BAD, CARE = "[green]✓[/]", "[red]✗[/]", "[yellow]![/]"
MOST_TEXT = 160


def screen(found: Preflight) -> Panel:
    """One line for each thing that was looked at, and what is in the way below."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, name, text in (_model(found), _trains(found), _pictures(found), _rows(found), *_labels(found)):
        grid.add_row(mark, name, text)
    for mark, name, text in (_gradients(found), _memory(found), *_answers(found)):
        grid.add_row(mark, name, text)
    for error in found.errors:
        grid.add_row(BAD, "", f"[red]{escape(_told(error))}[/]")
    for warning in found.warnings:
        grid.add_row(CARE, "", f"[yellow]{escape(warning)}[/]")
    ready = "[bold red]not ready[/]" if found.errors else "[bold green]ready[/]"
    return Panel(grid, title="Preflight", title_align="left", subtitle=ready, subtitle_align="left", padding=(0, 1))


def _told(error: VgidError) -> str:
    """The problem and what to do; in full, where one error tells of many rows."""
    return f"{error.problem}: {error.fix}" if error.fix and not error.where else str(error)


def _model(found: Preflight) -> tuple[str, str, str]:
    model = found.model
    return GOOD, "model", f"{model.kind} ({model.family}), {_count(model.parameters)} parameters in {model.dtype} on {model.device}"


def _trains(found: Preflight) -> tuple[str, str, str]:
    model = found.model
    parts = " and ".join(f"{count} {part}" for part, count in found.gradients.modules.items())
    names = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in model.modules))
    share = f"{100 * model.trained / model.parameters:.2g} %"
    return GOOD, "trains", f"{_count(model.trained)} parameters ({share}) in {parts} modules: {escape(names)}"


def _pictures(found: Preflight) -> tuple[str, str, str]:
    spreads = [side.image_tokens for name, side in found.sides.items() if side.image_tokens and name != "teacher"]
    if not spreads:
        return GOOD, "pictures", "none"
    least, most = min(s.least for s in spreads), max(s.most for s in spreads)
    if least == most:
        return GOOD, "pictures", f"{most} tokens each"
    return GOOD, "pictures", f"{least} to {most} tokens each, median {', '.join(f'{s.median:g}' for s in spreads)}"


def _rows(found: Preflight) -> tuple[str, str, str]:
    limits = {name: limit for name, limit in found.context.items() if limit is not None}
    most = f"context {min(limits.values())} ({min(limits, key=lambda name: limits[name])})" if limits else "context unbounded"
    longest = ", ".join(f"{name} {side.longest}" for name, side in found.sides.items())
    return GOOD, "longest", f"{longest} tokens; {most}; nothing is cut ({_looked(found.sides)})"


def _looked(sides: dict[str, Side]) -> str:
    rows = sum(side.rows for name, side in sides.items() if name != "teacher")
    looked = sum(side.looked_at for name, side in sides.items() if name != "teacher")
    return f"all {rows} rows" if rows == looked else f"{looked} of {rows} rows: the longest, and a sample"


def _labels(found: Preflight) -> list[tuple[str, str, str]]:
    lines: list[tuple[str, str, str]] = []
    for name, sample in found.samples.items():
        text = escape(f"{name}: {sample}")
        if sample.prompt is not None and sample.answer is not None:
            text += f"\n[dim]{_short(sample.prompt)} →[/] [reverse]{_short(sample.answer)}[/]"
        lines.append(("" if lines else GOOD, "" if lines else "labels", text))
    return lines


def _short(text: str) -> str:
    text = text.replace("\n", "⏎")
    return escape(text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT // 2]} … {text[-MOST_TEXT // 2 :]}")


def _gradients(found: Preflight) -> tuple[str, str, str]:
    gradients, total = found.gradients, sum(found.gradients.modules.values())
    reached = total - len(gradients.unreached)
    mark = BAD if gradients.dead_parts else CARE if gradients.unreached else GOOD
    what = "all" if reached == total else f"{reached} of"
    return mark, "gradient", f"reaches {what} {total} modules; with checkpointing: {gradients.checkpointing_says}"


def _memory(found: Preflight) -> tuple[str, str, str]:
    memory = found.memory
    parts = {"weights": memory.weights, "training state": memory.training, "activations": memory.activations}
    parts |= {"logits": memory.rows * memory.logits, "or answering": memory.answering, "or the end of the run": memory.ending}
    what = ", ".join(f"{name} {_size(value)}" for name, value in parts.items())
    there = "unknown" if found.room is None else _size(found.room)
    rows = f"{memory.rows} rows at once" + ("" if found.fits is None else f", at most {found.fits} would fit")
    mark = CARE if found.room is not None and memory.total > found.room else GOOD
    return mark, "memory", f"about {_size(memory.total)} of {there} on {found.model.device}: {what}; {rows}"


def _teacher(found: Preflight) -> tuple[str, str, str]:
    teacher = found.teacher
    if teacher is None:
        return GOOD, "teacher", "none: this method has no teacher"
    told = f"refuses {teacher.refuses:.0%}, still tells {teacher.accuracy:.0%} of the facts"
    text = f"answers {teacher.differs:.0%} of {teacher.n} forget questions differently from the model; {told}"
    return GOOD if not any("teacher" in warning for warning in found.warnings) else CARE, "teacher", text


def _answers(found: Preflight) -> list[tuple[str, str, str]]:
    """What teacher and model were found to answer; nothing where nothing is to be forgotten."""
    return [] if found.knowledge is None else [_teacher(found), _knowledge(found.knowledge)]


def _knowledge(known: Knowledge) -> tuple[str, str, str]:
    text = f"the model tells {known.accuracy:.0%} of the facts in {known.n} forget questions, probability {known.probability:.2f}"
    return GOOD if known.known else BAD, "knows", text


def _count(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _size(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"
