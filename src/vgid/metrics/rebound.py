"""Forgetting rebound: how many facts come back when the model is trained further on what it must keep (cf. arXiv 2406.13356).

The model is fine-tuned on retain rows, none of which is about a forgotten person, with the budget of the attack `relearn_other`. The
rebound of a row is what its answer states after this and did not state before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.attacks.asking import ask
from vgid.attacks.base import sample_alike
from vgid.attacks.relearn import RelearnOtherConfig, fine_tuned
from vgid.data.example import subject_key
from vgid.metrics.base import METRICS, Metric, Reading
from vgid.models.quantisation import is_quantised


@METRICS.register("rebound")
class Rebound(Metric):
    """Share of facts that are stated after further training on retain rows, minus that before."""

    measures: ClassVar = "rebound"
    reads: ClassVar = "weights"
    unit = "difference of shares, -1 to 1; 0 where nothing comes back"
    paper = "cf. 2406.13356"
    budget: ClassVar = RelearnOtherConfig()
    """Settings of the training."""

    def run(self, reading: Reading) -> Mapping[str, float]:
        """The difference for each row; none for a model in few bits, or without retain rows."""
        material, budget = reading.material, self.budget
        forgotten = {subject_key(row) for row in material.forget}
        others = [row for row in material.known if subject_key(row) not in forgotten]
        rows = sample_alike(others, material.forget, budget.rows, material.seed)
        if not rows or is_quantised(reading.loaded.model):
            return {}
        before = METRICS.get("key_fact")().run(reading)
        later = fine_tuned(reading.loaded, rows, budget, material.seed)
        after = ask(later, material.forget, lambda row: [row], material.batch_size)
        return {row.id: after[row.id] - before[row.id] for row in material.forget}
