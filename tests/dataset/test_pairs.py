"""Which scans of a chunk are pairs, and the true reason why others are not."""

from __future__ import annotations

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.pairs import source_and_target


def row(person: str, modality: str, ok: bool = True, reason: str = "", pair: str = "") -> dict[str, str]:
    return {
        "scan": f"sub-{person}_{modality}", "participant": person, "session": "", "modality": modality, "pair": pair,
        "ok": str(ok).lower(), "reason": reason, "outputs": "{}",
    }  # fmt: skip


def test_pairs_and_the_true_reasons() -> None:
    status = [
        *(row("a", modality) for modality in ("T1w", "FLAIR", "T2w")),
        row("b", "T1w"),
        row("b", "FLAIR", ok=False, reason="truncated"),
        row("c", "T1w"),
        row("d", "FLAIR"),
        row("e", "T1w", pair="x"),
        row("e", "FLAIR", pair="y"),
        row("f", "T1w", ok=False, reason="no brain"),
        row("f", "FLAIR"),
    ]
    pairs, left_out = source_and_target(status, DataOptions(modality="T1w", target="FLAIR"))
    assert [(source["scan"], target and target["scan"]) for source, target in pairs] == [("sub-a_T1w", "sub-a_FLAIR")]
    reasons = {each["scan"]: each["reason"] for each in left_out}
    assert reasons["sub-b_T1w"] == "its FLAIR scan was excluded: truncated"
    assert reasons["sub-f_FLAIR"] == "its T1w scan was excluded: no brain"
    for scan, other in (("sub-c_T1w", "FLAIR"), ("sub-d_FLAIR", "T1w"), ("sub-e_T1w", "FLAIR"), ("sub-e_FLAIR", "T1w")):
        assert reasons[scan].startswith(f"its chunk holds no {other} scan of this person and session")
