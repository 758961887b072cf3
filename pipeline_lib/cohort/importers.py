"""Writing the sheet from what is on disk: a BIDS dataset, a folder of scans, a folder of pictures."""

from __future__ import annotations

import csv
import glob
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline_lib.cohort.sheet import SEXES, Scan
from pipeline_lib.errors import UserError

NIFTI = (".nii", ".nii.gz")
PICTURES = {".png", ".jpg", ".jpeg"}
SPLIT_FOLDERS: Mapping[str, str] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
UNNAMED_FOLDERS = {"images", "image", "img", "slices"}
"""Folders that are neither a class nor a split."""
ANAT = {"T1w": "T1w", "T2w": "T2w", "FLAIR": "FLAIR", "PDw": "PD", "PD": "PD"}
PERSON_COLUMNS = ("participant_id", "participant", "id", "subject", "ID")
GROUP_COLUMNS = ("group", "diagnosis", "dx", "Group", "DX")
CONVERT = "convert DICOM to NIfTI first, e.g. with dcm2niix"
PLACEHOLDER = re.compile(r"\{(participant|session|modality)\}")
People = Mapping[str, Mapping[str, str]]


def from_bids(folder: Path) -> list[Scan]:
    """Every T1w, T2w, FLAIR, PD and dwi of a BIDS dataset, paths relative to it.

    Raises:
        UserError: when there is none.
    """
    people = read_people(folder / "participants.tsv") if (folder / "participants.tsv").is_file() else {}
    scans = []
    for path in sorted(folder.glob("sub-*/**/*")):
        inside = path.relative_to(folder)
        if not path.name.endswith(NIFTI) or inside.parts[-2] not in ("anat", "dwi"):
            continue
        session = next((part for part in inside.parts[:-1] if part.startswith("ses-")), "")
        suffix = path.name.split(".")[0].rsplit("_", 1)[-1]
        modality = "dwi" if suffix == "dwi" else ANAT.get(suffix)
        if modality is None:
            continue
        scan = Scan(_label(inside.parts[0]), _label(session), modality, inside.as_posix())
        if modality == "dwi":
            stem = path.name.split(".")[0]
            bval, bvec = (inside.with_name(f"{stem}.{name}").as_posix() for name in ("bval", "bvec"))
            scan = replace(scan, bval=bval, bvec=bvec)
        scans.append(_known(scan, people.get(scan.participant, {})))
    if not scans:
        raise UserError(
            f"{folder}: no sub-*/[ses-*/]anat or dwi NIFTI file; is it a BIDS dataset?{_dicom_hint(folder)}"
        )
    return scans


def from_folder(folder: Path, pattern: str, people: People, *, modality: str = "T1w") -> list[Scan]:
    """Every file whose path relative to ``folder`` fits a pattern such as ``t1/{participant}_T1.nii.gz``.

    Args:
        pattern: ``{participant}``, ``{session}`` and ``{modality}`` stand for any characters but a
            slash; what lies between letters and digits is left out of participant and session.
        people: what is known of each person, see `read_people`.
        modality: of all files where the pattern does not name it.

    Raises:
        UserError: when no file fits, or the pattern names no participant.
    """
    if "{participant}" not in pattern:
        raise UserError(
            f"pattern {pattern!r} names no {{participant}}; write for instance t1/{{participant}}_T1.nii.gz"
        )
    expression = ""
    place = 0
    for found in PLACEHOLDER.finditer(pattern):
        expression += re.escape(pattern[place : found.start()]) + f"(?P<{found[1]}>[^/]+?)"
        place = found.end()
    expression += re.escape(pattern[place:])
    if pattern.lower().endswith((".dcm", ".ima")):
        raise UserError(f"pattern {pattern!r} names DICOM files; {CONVERT}")
    scans = []
    for path in sorted(folder.rglob("*")):
        match = re.fullmatch(expression, path.relative_to(folder).as_posix())
        if match:
            parts = match.groupdict()
            scan = Scan(
                _label(parts["participant"]),
                _label(parts.get("session", "")),
                parts.get("modality", modality),
                path.relative_to(folder).as_posix(),
            )
            scans.append(_known(scan, people.get(scan.participant, {})))
    if not scans:
        raise UserError(f"{folder}: no file fits the pattern {pattern!r}{_dicom_hint(folder)}")
    return scans


def _dicom_hint(folder: Path) -> str:
    """What to do where a folder without scans holds DICOM files."""
    named = any(path.suffix.lower() in (".dcm", ".ima") or path.name == "DICOMDIR" for path in folder.rglob("*"))
    return f"; {CONVERT}" if named else ""


def from_pictures(folder: Path) -> list[Scan]:
    """PNG and JPEG slices: one row a person, with a pattern for the person's slices.

    ``patient_slice.ext`` belongs to ``patient`` (up to the last underscore). A name without one is a
    person of its own, and so is a picture that is only numbered within its class (``cat/cat_7.jpg``).
    Folders called train, validation or test become the split column, the next ones, the classes,
    groups. A person in two classes has one session a class.

    Raises:
        UserError: when there is no picture, or one person's pattern takes another's slices.
    """
    found: dict[tuple[str, str, str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            inside = path.relative_to(folder)
            named = [part for part in inside.parts[:-1] if part.lower() not in UNNAMED_FOLDERS]
            split = SPLIT_FOLDERS.get(named[0].lower(), "") if named else ""
            classes = named[1:] if split else named
            person = path.stem.rsplit("_", 1)[0]
            if person in inside.parts[:-1]:
                person = path.stem
            found[person, split, classes[0] if classes else "", inside.parent.as_posix()].append(inside)
    if not found:
        raise UserError(f"{folder}: no PNG or JPEG file below it{_dicom_hint(folder)}")
    places = Counter(person for person, _, _ in {(person, split, group) for person, split, group, _ in found})
    neighbours = defaultdict(set)
    for person, _, _, parent in found:
        neighbours[parent].add(person)
    scans = []
    for (person, split, group, parent), paths in found.items():
        session = _label(split + group) if places[person] > 1 else ""
        if len(paths) > 1 or paths[0].stem != person:
            words = person.split("_")
            for shorter in ("_".join(words[:n]) for n in range(1, len(words))):
                if shorter in neighbours[parent]:
                    raise UserError(
                        f"{folder / parent}: pictures {shorter}_* are of {shorter} and of {person}; "
                        "rename one so that no person's name starts with another's and an underscore"
                    )
            suffixes = {path.suffix for path in paths}
            pattern = f"{glob.escape(person)}_*{suffixes.pop() if len(suffixes) == 1 else '.*'}"
        else:
            pattern = glob.escape(paths[0].name)
        place = "" if parent == "." else f"{glob.escape(parent)}/"
        scans.append(Scan(_label(person), session, "image", place + pattern, group=group, split=split))
    return scans


def read_people(path: Path) -> dict[str, dict[str, str]]:
    """Age, sex and group by participant from a CSV or TSV file, whatever its columns are called.

    Raises:
        UserError: when it cannot be read or names no participant.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    columns = rows[0].keys() if rows else ()
    person = next((name for name in PERSON_COLUMNS if name in columns), None)
    if person is None:
        raise UserError(f"{path}: no column names the participant; call one participant_id")
    group = next((name for name in GROUP_COLUMNS if name in columns), "")
    sex = next((name for name in columns if name.lower() in ("sex", "gender")), "")
    age = next((name for name in columns if name.lower() == "age"), "")
    return {
        _label(row[person]): {"group": row.get(group) or "", "sex": row.get(sex) or "", "age": row.get(age) or ""}
        for row in rows
    }


def group_by_age(scans: Iterable[Scan], bands: Sequence[str]) -> list[Scan]:
    """Name groups by age, e.g. ``young:0-45``: from the first age up to, not including, the second.

    Raises:
        UserError: when a band is not ``name:from-to``.
    """
    limits = []
    for band in bands:
        match = re.fullmatch(r"([A-Za-z0-9]+):([0-9.]+)-([0-9.]+)", band)
        if match is None:
            raise UserError(f"age group {band!r} is not name:from-to, e.g. young:0-45")
        limits.append((match[1], float(match[2]), float(match[3])))
    return [
        replace(
            scan,
            group=next((name for name, low, high in limits if scan.age is not None and low <= scan.age < high), ""),
        )
        for scan in scans
    ]


def _known(scan: Scan, about: Mapping[str, str]) -> Scan:
    try:
        age = float(about.get("age", ""))
    except ValueError:
        age = None
    sex = SEXES.get(about.get("sex", "").lower(), "")
    return replace(scan, age=age if age and 0 < age <= 120 else None, sex=sex, group=about.get("group", ""))


def _label(text: str) -> str:
    """Letters and digits only, as BIDS wants labels."""
    return re.sub(r"[^A-Za-z0-9]", "", text.removeprefix("sub-").removeprefix("ses-"))
