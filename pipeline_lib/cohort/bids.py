"""The scans of a BIDS dataset: which there are, which of several is used, which are left out and why."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline_lib.cohort.people import few
from pipeline_lib.errors import UserError

NIFTI = (".nii.gz", ".nii")
IMAGE = re.compile(r"\.(nii|nii\.gz|hdr|img|mgz|mgh|mnc|nrrd|nhdr|mha|mhd|dcm|ima|par|rec)$", re.IGNORECASE)
"""Files that somebody may take for a scan."""
SUFFIXES: Mapping[str, str] = {
    "T1w": "T1w", "T2w": "T2w", "FLAIR": "FLAIR", "PDw": "PD", "PD": "PD", "dwi": "dwi",
}  # fmt: skip
DATATYPES = ("anat", "dwi")
SUBJECT = re.compile(r"sub-", re.IGNORECASE)
LOCALISER = re.compile(r"locali[sz]er|scout|survey|^loc$", re.IGNORECASE)
RULE = (
    "of several scans of one kind in a session one is used: without contrast agent, in its own space, not derived, not "
    "reconstructed anew, named by the fewest entities, of the lowest run (dwi: first of the most volumes)"
)


@dataclass(frozen=True)
class File:
    """A file of the dataset: ``sub-01_acq-0.8mm_T1w.nii.gz`` has the entities sub and acq and the suffix T1w."""

    path: PurePosixPath
    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, path: PurePosixPath, extension: str) -> File:
        """Read a name; a part without a dash is an entity of no value."""
        *parts, suffix = path.name.removesuffix(extension).split("_")
        return cls(path, {key: value for key, _, value in (part.partition("-") for part in parts)}, suffix)

    @property
    def participant(self) -> str:
        """As its folder says."""
        return self.path.parts[0].removeprefix("sub-")

    @property
    def session(self) -> str:
        """As its folder or its name says, else empty."""
        folder = next((part for part in self.path.parts[1:-1] if part.startswith("ses-")), "")
        return folder.removeprefix("ses-") or self.entities.get("ses", "")


@dataclass(frozen=True)
class Dataset:
    """What is used, with the gradients of dwi, and each file left out with its reason."""

    files: tuple[File, ...]
    gradients: Mapping[PurePosixPath, tuple[str, str]]
    left_out: tuple[tuple[str, str], ...]


def read_dataset(folder: Path) -> Dataset:
    """Find the scans below ``sub-*``; hidden files and folders, derivatives and source data are passed over.

    Raises:
        UserError: the folder cannot be listed.
    """
    left_out: list[tuple[str, str]] = []
    found: dict[tuple[str, str, str], list[File]] = defaultdict(list)
    gradients: dict[PurePosixPath, tuple[str, str]] = {}
    for path in image_files(folder):
        extension = next((each for each in NIFTI if path.name.endswith(each)), "")
        if not extension:
            left_out.append((path.as_posix(), f"no {' or '.join(NIFTI)} file"))
            continue
        file = File.of(path, extension)
        reason = _unusable(file)
        if not reason and file.suffix == "dwi":
            tables = [inherited(folder, file, f".{name}") for name in ("bval", "bvec")]
            reason = "" if all(tables) else "no .bval and .bvec beside it or in a folder above"
            gradients[path] = (tables[0], tables[1])
        if reason:
            left_out.append((path.as_posix(), reason))
        else:
            found[file.participant, file.session, SUFFIXES[file.suffix]].append(file)
    used = []
    for files in found.values():
        ranked = sorted(files, key=lambda file: _rank(folder, file, gradients, alone=len(files) == 1))
        used.append(ranked[0])
        left_out += [(file.path.as_posix(), f"{ranked[0].path.name} is used") for file in ranked[1:]]
    return Dataset(tuple(sorted(used, key=lambda file: file.path)), gradients, tuple(sorted(left_out)))


def image_files(folder: Path) -> Iterator[PurePosixPath]:
    """Every file below ``sub-*``, ``SUB-*`` too, that may be a scan, in order, but no hidden one."""
    try:
        people = sorted(entry.name for entry in os.scandir(folder) if SUBJECT.match(entry.name) and entry.is_dir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    for person in people:
        for place, folders, names in os.walk(folder / person, onerror=refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if IMAGE.search(name) and not name.startswith("."):
                    yield PurePosixPath(Path(place, name).relative_to(folder).as_posix())


def refuse(error: OSError) -> None:
    """For `os.walk`, which would pass over a folder that it cannot list."""
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")


def inherited(folder: Path, file: File, extension: str) -> str:
    """The nearest file that applies to a scan by BIDS's inheritance; empty where there is none.

    It lies beside the scan or in a folder above and names no entity that the scan does not.
    """
    for place in file.path.parents:
        fitting = [
            other
            for name in _listing(folder / place, extension)
            if (other := File.of(place / name, extension)).suffix == file.suffix
            and other.entities.items() <= file.entities.items()
        ]
        if fitting:
            return max(fitting, key=lambda other: (len(other.entities), other.path.name)).path.as_posix()
    return ""


def _listing(folder: Path, extension: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(extension) and not name.startswith("."))
    except OSError:
        return []


def _unusable(file: File) -> str:
    """Why a file is no scan that could be used; empty where it is one."""
    if not file.path.as_posix().isprintable():
        return "a name that is not readable text"
    if not file.path.parts[0].startswith("sub-"):
        return "in a folder that does not start with sub- in small letters; rename it"
    if len(file.path.parts) < 3 or file.path.parts[-2] not in DATATYPES:
        return f"in no folder {' or '.join(DATATYPES)}"
    if file.suffix not in SUFFIXES:
        near = next((suffix for suffix in SUFFIXES if suffix.lower() == file.suffix.lower()), "")
        return f"no {', '.join(SUFFIXES)} scan" + (f"; rename {file.suffix} to {near}" if near else "")
    if file.entities.get("sub", file.participant) != file.participant:
        return "named of another person than its folder"
    if file.entities.get("ses", file.session) != file.session:
        return "named of another session than its folder"
    if file.entities.get("part", "mag") != "mag":
        return "a phase, real or imaginary image"
    if any(LOCALISER.search(value) for value in file.entities.values()):
        return "a localiser"
    return "shows a part only (chunk)" if "chunk" in file.entities else ""


def _rank(
    folder: Path, file: File, gradients: Mapping[PurePosixPath, tuple[str, str]], *, alone: bool
) -> tuple[object, ...]:
    if alone:
        return ()
    entities = file.entities
    return (
        "ce" in entities or _has_contrast_agent(folder, file),
        "space" in entities,
        "desc" in entities,
        "rec" in entities,
        -_volumes(folder / gradients[file.path][0]) if file.path in gradients else 0,
        len(entities.keys() - {"run"}),
        [int(number) for number in re.findall(r"[0-9]+", entities.get("run", "0"))[:1]],
        file.path.name,
    )


def _has_contrast_agent(folder: Path, file: File) -> bool:
    sidecar = inherited(folder, file, ".json")
    try:
        about = json.loads((folder / sidecar).read_text(encoding="utf-8-sig")) if sidecar else {}
    except (OSError, ValueError):
        return False
    agent = about.get("ContrastBolusIngredient") if isinstance(about, dict) else None
    return bool(agent) and str(agent).lower() not in ("none", "n/a")


def _volumes(bval: Path) -> int:
    try:
        return len(bval.read_bytes().split())
    except OSError:
        return 0


def summed_up(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each reason: how many files, and the first of them."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, reason in left_out:
        reasons["another scan of the session is used" if reason.endswith(" is used") else reason].append(path)
    return [
        f"{len(paths)} {'file' if len(paths) == 1 else 'files'} left out, {reason}: {few(paths, 3)}"
        for reason, paths in reasons.items()
    ]
