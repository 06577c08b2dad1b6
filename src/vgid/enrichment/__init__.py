"""Enrichment: make from a request's own rows what it lacks, so that facts are forgotten in every form in which the base gives them.

Each kind of row is one module: `names`, `wordings`, `views`, `pairs`, `seen`, `facts`. `enrich` puts them together. Every row says what it
was made from (`Example.derived`), and is kept only where the base answers it as the row it was made from.
"""

from vgid.enrichment.enrich import Enriched, enrich, known_names, write_enriched
from vgid.enrichment.kinds import KINDS, Kind
from vgid.enrichment.others import read_names, read_pictures, rows_about_others

__all__ = [
    "KINDS",
    "Enriched",
    "Kind",
    "enrich",
    "known_names",
    "read_names",
    "read_pictures",
    "rows_about_others",
    "write_enriched",
]
