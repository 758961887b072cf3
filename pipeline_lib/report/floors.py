"""Does each recipe beat its floor? One line for a terminal, from the metrics that evaluations wrote."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.errors import UserError
from pipeline_lib.report.records import read_record
from pipeline_lib.report.verdict import Verdict, headline, judged, metrics_of, verdict
from pipeline_lib.tasks import TASKS


def floors(results: Path) -> list[str]:
    """``4 of 4 recipes beat their floor``, and a line for each that does not.

    What has to be beaten is decided by the roles of the metrics, as on the recipes' pages. Where the floor is real people
    against real people, a result that cannot be told from it has reached it.

    Raises:
        UserError: no recipe was evaluated in ``results``.
    """
    folders = sorted(path.parent for path in results.glob("*/evaluation/metrics.json"))
    if not folders:
        raise UserError(f"{results}: no recipe was evaluated here; run the workflow to its end")
    verdicts = {folder.parent.name: _verdict(folder) for folder in folders}
    behind = {name: said for name, (said, passed) in verdicts.items() if not passed}
    return [
        f"{len(verdicts) - len(behind)} of {len(verdicts)} recipes beat their floor",
        *(f"{name}: {said.sentence}" for name, said in behind.items()),
    ]


def _verdict(evaluation: Path) -> tuple[Verdict, bool]:
    task = TASKS[read_record(evaluation / "provenance.json")["options"]["task"]]
    metrics = metrics_of(evaluation)
    missing = [row.note for row in metrics if row.value is None and row.note]
    said = verdict(task, metrics, headline(task.headline, judged(metrics)), missing)
    return said, said.outcome in task.passes
