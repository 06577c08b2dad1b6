"""`vgid methods`."""

from __future__ import annotations

import json

from vgid.commands.options import Json
from vgid.commands.root import app
from vgid.commands.show import terminal


@app.command()
def methods(as_json: Json = False) -> None:
    """List the unlearning methods: name, kind, paper and what each needs."""
    from vgid.methods.catalogue import catalogue
    from vgid.report.table import methods_table

    rows = catalogue()
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    terminal().print(methods_table(rows))
