"""Writing the sheet from what is on disk: a BIDS dataset, a folder of scans, a folder of pictures."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline_lib.cohort import bids
from pipeline_lib.cohort.chunks import SPLITS
from pipeline_lib.cohort.people import People, few, read_people, with_sessions
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.values import LONGEST_LABEL, as_label, bare
from pipeline_lib.errors import UserError

PICTURES = {".png", ".jpg", ".jpeg"}
OTHER_PICTURES = {".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".ppm", ".pgm", ".dcm", ".svg"}
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
UNNAMED_FOLDERS = {"images", "image", "img", "slices"}
"""Folders that are neither a class nor a split."""
NUMBERED = {"", "image", "img", "im", "picture", "pic", "photo", "slice", "frame", "scan"}
"""What stands before the number where pictures are only numbered."""
CONVERT = "convert DICOM to NIfTI first, e.g. with dcm2niix"
PLACEHOLDER = re.compile(r"\{(participant|session|modality)\}")
Whose = Literal["name", "picture", "folder"]


@dataclass
class Found:
    """Rows of a sheet, lines that say what was chosen and not understood, and the files left out with their reasons."""

    scans: list[Scan]
    notes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


class Labels:
    """Ids as they stand on disk, each with a label of its own.

    BIDS wants labels of letters and digits. Where two ids would share one, the import stops: it cannot know whether
    they are one person.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[str, str] = {}

    def of(self, written: str) -> str:
        """The label of an id.

        Raises:
            UserError: it has none, too long a one, or another id's.
        """
        label = as_label(written)
        if not label or len(label) > LONGEST_LABEL:
            raise UserError(
                f"{self.folder}: {written!r} cannot be an id: it needs letters or digits, {LONGEST_LABEL} at most; rename it"
            )
        other = self.written.setdefault(label, written)
        if bare(other) != bare(written):
            raise UserError(
                f"{self.folder}: {other} and {written} would both be {label}, letters and digits alone; "
                "rename one, or both where they are one person"
            )
        return label


def from_bids(folder: Path, *, covariates: Sequence[str] = ()) -> Found:
    """The T1w, T2w, FLAIR, PD and dwi of a BIDS dataset, one of each a session (`bids.RULE`), paths relative to it.

    Args:
        covariates: further columns of ``participants.tsv`` to keep.

    Raises:
        UserError: when there is none.
    """
    dataset = bids.read_dataset(folder)
    labels, sessions = Labels(folder), Sessions(folder)
    scans = []
    for file in dataset.files:
        participant = labels.of(file.participant)
        bval, bvec = dataset.gradients.get(file.path, ("", ""))
        scans.append(
            Scan(
                participant,
                sessions.of(participant, file.session),
                bids.SUFFIXES[file.suffix],
                file.path.as_posix(),
                bval=bval,
                bvec=bvec,
            )
        )
    if not scans:
        why = "".join(f"; {line}" for line in bids.summed_up(dataset.left_out)[:3])
        raise UserError(
            f"{folder}: no sub-*/[ses-*/]anat or dwi NIFTI file; is it a BIDS dataset?{why}{_dicom_hint(folder)}"
        )
    joined, notes = _bids_people(folder, covariates).join(scans, labels.written)
    if any(reason.endswith(" is used") for _, reason in dataset.left_out):
        notes.append(bids.RULE)
    return Found(joined, [*notes, *bids.summed_up(dataset.left_out)], list(dataset.left_out))


def from_folder(
    folder: Path, pattern: str, people: People | None = None, *, modality: str = "T1w", lesion_pattern: str = ""
) -> Found:
    """Every file whose path relative to ``folder`` fits a pattern such as ``t1/{participant}_T1.nii.gz``.

    Args:
        pattern: ``{participant}``, ``{session}`` and ``{modality}`` stand for any characters but a slash, the same
            wherever one stands twice; what lies between letters and digits is left out of participant and session.
        people: what is known of each person, see `read_people`.
        modality: of all files where the pattern does not name it.
        lesion_pattern: where each scan's lesion mask is, with the same placeholders; a mask that does not exist is
            unknown.

    Raises:
        UserError: when no file fits, or the pattern names no participant.
    """
    if pattern.lower().endswith((".dcm", ".ima")):
        raise UserError(f"pattern {pattern!r} names DICOM files; {CONVERT}")
    expression = _expression(pattern)
    labels, sessions = Labels(folder), Sessions(folder)
    scans: list[Scan] = []
    others = []
    seen: dict[str, str] = {}
    for path in _files(folder):
        match = expression.fullmatch(path)
        if match is None or not path.isprintable():
            others.append(path)
            continue
        parts = {"session": "", "modality": modality, **match.groupdict()}
        participant = labels.of(parts["participant"])
        session = sessions.of(participant, parts["session"])
        scan = Scan(participant, session, parts["modality"], path)
        if (other := seen.setdefault(scan.id, path)) != path:
            raise UserError(f"{folder}: {other} and {path} would both be {scan.id}; rename one, or give them sessions")
        lesion = PLACEHOLDER.sub(lambda found, parts=parts: parts[found[1]], lesion_pattern)  # type: ignore[misc]
        if lesion and (folder / lesion).is_file():
            scan = replace(scan, lesion=lesion)
        if scan.modality == "dwi":
            tables = [f"{re.sub(r'[.]nii([.]gz)?$', '', path)}.{name}" for name in ("bval", "bvec")]
            bval, bvec = (table if (folder / table).is_file() else "" for table in tables)
            scan = replace(scan, bval=bval, bvec=bvec)
        scans.append(scan)
    if not scans:
        example = next((f"; there is {path}" for path in others if path.endswith(bids.NIFTI)), "")
        raise UserError(f"{folder}: no file fits the pattern {pattern!r}{example}{_dicom_hint(folder)}")
    joined, notes = (people or People()).join(scans, labels.written)
    masks = {scan.lesion for scan in scans if scan.lesion}
    left_out = [
        (path, "does not fit the pattern" if path.isprintable() else "a name that is not readable text")
        for path in others
        if bids.IMAGE.search(path) and path not in masks
    ]
    if lesion_pattern:
        notes.append(
            f"{len(masks)} of {len(scans)} scans have a lesion mask; the others are unknown (write none where none is)"
        )
    return Found(joined, [*notes, *bids.summed_up(left_out)], left_out)


def from_pictures(folder: Path, *, whose: Whose = "name", lesion_pattern: str = "") -> Found:
    """PNG and JPEG slices: one row a person, with a pattern for the person's slices.

    Folders called train, validation or test become the split column, the next ones, the classes, groups.

    Args:
        whose: whose picture it is. ``name``: ``patient_slice.ext`` belongs to ``patient`` (up to the last
            underscore), who has one session a class where there are two; a name without one is a person of its own;
            and so is a picture that is only numbered within its class (``cat/cat_7.jpg``, ``cat/0007.jpg``), whose
            id names split and class too. ``picture``: each is a person of its own. ``folder``: all of a folder are
            one person's.
        lesion_pattern: where the lesion mask of a picture is, ``{folder}`` and ``{name}`` being the picture's own,
            e.g. ``masks/{folder}/{name}.png``. A person some of whose slices have none is unknown.

    Raises:
        UserError: when there is no picture, or one person's pattern takes another's slices.
    """
    files = [PurePosixPath(path) for path in _files(folder) if path.isprintable()]
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    masks: set[str] = set()
    if lesion_pattern:
        present = {str(path) for path in files}
        masks = {mask for path in pictures if (mask := _mask_of(str(path), lesion_pattern)) in present} - {""}
        pictures = [path for path in pictures if str(path) not in masks]
    if not pictures:
        raise UserError(f"{folder}: no PNG or JPEG file below it{_dicom_hint(folder)}")
    sets = _picture_sets(pictures, whose)
    places = Counter(key.person for key in sets if not key.alone)
    classes = Counter((key.person, key.split, key.group) for key in sets)
    neighbours: dict[str, set[str]] = defaultdict(set)
    for key in sets:
        if not key.alone:
            neighbours[key.folder].add(key.person)
    labels, sessions = Labels(folder), Sessions(folder)
    scans = []
    partly = []
    for key, paths in sets.items():
        session = ""
        if not key.alone and places[key.person] > 1:  # one session a class, or a folder where a class has several
            alike = classes[key.person, key.split, key.group] > 1
            session = sessions.of(key.person, key.folder if alike else key.split + key.group)
        pattern = _pattern_of(folder, key, paths, neighbours[key.folder], whose)
        scan = Scan(labels.of(key.id), session, "image", pattern, group=key.group, split=key.split)
        marked = sum(_mask_of(str(path), lesion_pattern) in masks for path in paths) if masks else 0
        if marked == len(paths):
            scan = replace(scan, lesion=_mask_of(pattern, lesion_pattern))
            _refuse_masks_among_pictures(folder, scan, paths)
        elif marked:
            partly.append(scan.participant)
        scans.append(scan)
    notes = _picture_notes(sets)
    if lesion_pattern:
        notes.append(
            f"{sum(bool(scan.lesion) for scan in scans)} of {len(scans)} people have lesion masks; the others are unknown"
        )
    if partly:
        notes.append(
            f"{len(partly)} people have masks for some of their slices only and count as unknown: {few(partly)}"
        )
    left_out = [(str(path), "no PNG or JPEG picture") for path in files if path.suffix.lower() in OTHER_PICTURES]
    return Found(scans, [*notes, *bids.summed_up(left_out)], left_out)


def group_by_age(scans: Iterable[Scan], bands: Sequence[str]) -> list[Scan]:
    """Name groups by age, e.g. ``young:0-45``: from the first age up to, not including, the second.

    Raises:
        UserError: when a band is not ``name:from-to``.
    """
    limits = []
    for band in bands:
        match = re.fullmatch(r"([A-Za-z0-9]+):([0-9]+(?:\.[0-9]+)?)-([0-9]+(?:\.[0-9]+)?)", band)
        if match is None or float(match[2]) >= float(match[3]):
            raise UserError(
                f"--age-groups: {band!r} is not name:from-to, e.g. young:0-45, from the lower to the higher age"
            )
        limits.append((match[1], float(match[2]), float(match[3])))
    return [
        replace(
            scan,
            group=next((name for name, low, high in limits if scan.age is not None and low <= scan.age < high), ""),
        )
        for scan in scans
    ]


class Sessions:
    """Labels of each person's sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of_person: dict[str, Labels] = {}

    def of(self, participant: str, written: str) -> str:
        """The label of a session; empty where there is none."""
        if not written:
            return ""
        return self.of_person.setdefault(participant, Labels(self.folder / participant)).of(written)


def _bids_people(folder: Path, covariates: Sequence[str]) -> People:
    """``participants.tsv``, and each person's ``sessions.tsv`` where there are any."""
    table = folder / "participants.tsv"
    people = read_people(table, covariates) if table.is_file() else People()
    sessions = sorted(path for path in folder.glob("sub-*/sub-*_sessions.tsv") if path.is_file())
    return with_sessions(people, [read_people(path, participant=path.parent.name) for path in sessions])


def _expression(pattern: str) -> re.Pattern[str]:
    if "{participant}" not in pattern:
        raise UserError(
            f"pattern {pattern!r} names no {{participant}}; write for instance t1/{{participant}}_T1.nii.gz"
        )
    expression, place = "", 0
    for found in PLACEHOLDER.finditer(pattern):
        named = f"(?P<{found[1]}>"
        expression += re.escape(pattern[place : found.start()])
        expression += f"(?P={found[1]})" if named in expression else f"{named}[^/]+?)"
        place = found.end()
    return re.compile(expression + re.escape(pattern[place:]))


def _files(folder: Path) -> Iterator[str]:
    """Every file below a folder by its path relative to it, in order; no hidden ones, and none in hidden folders."""
    for place, folders, names in os.walk(folder, onerror=bids.refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(place, folder)
        for name in sorted(names):
            if not name.startswith("."):
                yield name if inside == "." else posixpath.join(inside, name)


def _dicom_hint(folder: Path) -> str:
    """What to do where a folder without scans holds DICOM files."""
    named = any(path.lower().endswith((".dcm", ".ima")) or path.endswith("DICOMDIR") for path in _files(folder))
    return f"; {CONVERT}" if named else ""


@dataclass(frozen=True)
class _Pictures:
    """Whose pictures, and where: ``alone`` where the person is one picture that its place must tell from others."""

    person: str
    split: str
    group: str
    folder: str
    alone: bool

    @property
    def id(self) -> str:
        """The person's name; of a picture alone, split and class before it."""
        if not self.alone:
            return self.person
        label = ""
        for part in map(as_label, (self.split, self.group, self.person)):
            # 1/11 and 11/1 must not be one: digits that meet are held apart.
            label += ("x" if label[-1:].isdigit() and part[:1].isdigit() else "") + part
        return label


def _picture_sets(pictures: Sequence[PurePosixPath], whose: Whose) -> dict[_Pictures, list[PurePosixPath]]:
    found: dict[_Pictures, list[PurePosixPath]] = defaultdict(list)
    for path in pictures:
        named = [part for part in path.parts[:-1] if part.lower() not in UNNAMED_FOLDERS]
        split = SPLIT_FOLDERS.get(named[0].lower(), "") if named else ""
        classes = named[1:] if split else named
        if whose == "folder" and classes:
            *classes, person = classes
            alone = False
        else:
            person = path.stem.rsplit("_", 1)[0]
            alone = whose == "picture" or _only_numbered(path)
            person = path.stem if alone else person
        key = _Pictures(person, split, classes[0] if classes else "", path.parent.as_posix(), alone)
        found[key].append(path)
    return found


def _only_numbered(path: PurePosixPath) -> bool:
    """``0007``, ``img_7``, and what is called as its folder is: ``cat/cat_7``."""
    folders = {part.lower() for part in path.parts[:-1]}
    stem = path.stem.lower()
    return re.sub(r"[\W_0-9]+$", "", stem) in NUMBERED | folders or stem.rsplit("_", 1)[0] in folders


def _pattern_of(
    folder: Path, key: _Pictures, paths: Sequence[PurePosixPath], neighbours: Iterable[str], whose: Whose
) -> str:
    """The path of a person's one picture, or the pattern of the slices."""
    place = "" if key.folder == "." else f"{glob.escape(key.folder)}/"
    if key.alone or (len(paths) == 1 and paths[0].stem == key.person):
        return place + glob.escape(paths[0].name)
    suffixes = {path.suffix for path in paths}
    ending = suffixes.pop() if len(suffixes) == 1 else ".*"
    if whose == "folder":
        return f"{place}*{ending}"
    words = key.person.split("_")
    for shorter in ("_".join(words[:n]) for n in range(1, len(words))):
        if shorter in neighbours:
            raise UserError(
                f"{folder / key.folder}: pictures {shorter}_* are of {shorter} and of {key.person}; "
                "rename one so that no person's name starts with another's and an underscore"
            )
    return f"{place}{glob.escape(key.person)}_*{ending}"


def _mask_of(path: str, pattern: str) -> str:
    """Where the lesion mask of a picture (or of a pattern of pictures) is."""
    folder, name = posixpath.split(path)
    filled = pattern.replace("{folder}", folder or ".").replace("{name}", name.rsplit(".", 1)[0])
    return posixpath.normpath(filled)


def _refuse_masks_among_pictures(folder: Path, scan: Scan, paths: Sequence[PurePosixPath]) -> None:
    taken = {Path(found).name for found in glob.glob(scan.path, root_dir=folder)}
    if masks := sorted(taken - {path.name for path in paths}):
        raise UserError(
            f"{folder}: {scan.path} takes masks for pictures, e.g. {masks[0]}; move the masks to a folder of their own"
        )


def _picture_notes(sets: dict[_Pictures, list[PurePosixPath]]) -> list[str]:
    notes = []
    alone = [str(paths[0]) for key, paths in sets.items() if key.alone]
    if alone:
        notes.append(
            f"{len(alone)} pictures are people of their own, e.g. {alone[0]}; --whose folder where a folder is one person's"
        )
    crowded = [(key, paths) for key, paths in sets.items() if len(paths) > 300 and not key.alone]
    notes += [
        f"{key.folder}: {len(paths)} pictures are taken for slices of one person, {key.person}; --whose picture where "
        "each is a person's own"
        for key, paths in crowded[:3]
    ]
    named = Counter(key.split for key in sets)
    if any(split in named for split in SPLITS) and named[""]:
        notes.append(f"{named['']} people are in no folder called train, validation or test")
    return notes
