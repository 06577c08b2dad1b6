"""`vgid methods`."""

from __future__ import annotations

from vgid.commands.options import Json
from vgid.commands.root import app
from vgid.commands.show import show


@app.command()
def methods(as_json: Json = False) -> None:
    """List the unlearning methods: name, kind, paper and what each needs."""
    from vgid.methods.catalogue import catalogue
    from vgid.report.table import methods_table

    rows = catalogue()
    show(rows, as_json, [methods_table(rows)])
