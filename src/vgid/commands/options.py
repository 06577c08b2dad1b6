"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vgid.config import RunConfig
    from vgid.enrichment import Kind


def _trust(given: bool) -> bool:
    if given:
        from vgid.models.loading import trust_remote_code

        trust_remote_code()
    return given


TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", callback=_trust, help="Run code that a checkpoint brings with it; without, it never runs.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results; must be new or empty.", file_okay=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left in the folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --out, if there is one.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results object alone on stdout.")]
Recipe = Annotated[str | None, typer.Option(help="Built-in recipe (see `vgid recipes`) or a YAML file.")]
Method = Annotated[str | None, typer.Option(help="Method (see `vgid methods`), with settings that fit it.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change one setting of the run: a.b=c. Repeatable.")]
Protocol = Annotated[list[str] | None, typer.Option("--protocol", help="Change one setting of the benchmark: a=b. Repeatable.")]
AllowUnknown = Annotated[bool, typer.Option("--allow-unknown", help="Go on although the model does not know the forget set.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")]
Examined = Annotated[
    int | None,
    typer.Option("--max-rows", min=0, help="Rows of each set to ask before and after, at most (200); 0 for none.", show_default=False),
]
Bench = Annotated[str | None, typer.Option("--benchmark", help="Read the data as a benchmark, such as mllmu or clear.")]
Part = Annotated[str | None, typer.Option("--forget-part", help="Which forget set of the benchmark, such as 5 or 10.")]
LARGEST_SEED = 2**32 - 1
"""As in `vgid.settings`, which is not imported here, so that help texts appear at once."""
MOST_SEEDS = 1000
"""Seeds of one comparison or experiment; each takes minutes."""
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Random seed.")]
RunSeed = Annotated[int | None, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Random seed of the run.")]
Reference = Annotated[str | None, typer.Option("--reference", help="A model that never saw the forget set, to compare with.")]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="Make no rows of this kind from those given: names, wordings, views, pairs, seen, facts. Repeatable."),
]


class TurnsName(StrEnum):
    """Which answers of a conversation become rows."""

    last = "last"
    all = "all"


Turns = Annotated[TurnsName, typer.Option(help="Of a conversation, the last answer, or a row of each answer.")]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Folder that image paths are relative to; by default the data file's.", file_okay=False)
]
RunTurns = Annotated[
    TurnsName | None, typer.Option("--turns", help="Of a conversation, the last answer, or a row of each answer (setting `data.turns`).")
]
RunImageRoot = Annotated[
    Path | None,
    typer.Option("--image-root", help="Folder that image paths are relative to (setting `data.image_root`).", file_okay=False),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Questions that are asked at once.")]

RENAMED = {
    "--examine": "--max-rows",
    "--sample": "--max-rows",
    "--rows": "--max-rows",
    "--limit": "--max-rows",
    "--retrained": "--reference",
    "--retain-ratio": "--set training.retain_ratio=…",
}
"""Former options and what they are called now; using one is an error that says so."""


def run_config(recipe: str | None, method: str | None, settings: list[str] | None, seed: int | None = None) -> RunConfig:
    """Resolve the configuration that a command's options describe.

    Args:
        recipe: `--recipe`.
        method: `--method`.
        settings: `--set`, once for each setting.
        seed: `--seed`; None leaves it to the recipe.

    Returns:
        The validated configuration.
    """
    from vgid.config import resolve

    return resolve(recipe, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])], method=method)


def with_reading(config: RunConfig, turns: TurnsName | None, image_root: Path | None) -> RunConfig:
    """Put `--turns` and `--image-root` in place of the settings `data.turns` and `data.image_root`, where they are given.

    Args:
        config: the configuration.
        turns: `--turns`.
        image_root: `--image-root`.

    Returns:
        The configuration with both.
    """
    given = {"turns": turns and turns.value, "image_root": image_root and str(image_root)}
    changed = {name: value for name, value in given.items() if value is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=changed)}) if changed else config


def check_used(needs: str, present: object, **given: object) -> None:
    """Make sure that options which do nothing without another one are not given without it.

    Args:
        needs: the other one.
        present: its value.
        **given: values of the options, by name with `_` for `-`.

    Raises:
        ConfigError: the other one is missing.
    """
    from vgid.errors import ConfigError

    unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if unused and not present:
        raise ConfigError(f"an option does nothing without {needs}", got=", ".join(unused), fix=f"add {needs}, or leave it out")


def kinds(without: list[str] | None) -> tuple[Kind, ...]:
    """Check the values of `--without`, in the order of all kinds.

    Raises:
        ConfigError: there is no such kind.
    """
    from vgid.enrichment import KINDS
    from vgid.errors import ConfigError

    unknown = sorted(set(without or ()) - set(KINDS))
    if unknown:
        raise ConfigError("there is no such kind of rows", where="--without", expected=", ".join(KINDS), got=", ".join(unknown))
    return tuple(kind for kind in KINDS if kind in (without or ()))
