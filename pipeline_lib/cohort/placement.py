"""Where new scans go: people into splits, scans into chunks."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline_lib.cohort.chunks import SPLITS, ChunkName
from pipeline_lib.cohort.files import matching_files
from pipeline_lib.cohort.ledger import Ledger, Placement, shortened
from pipeline_lib.cohort.sheet import Scan, Sheet, people
from pipeline_lib.config.schema import SplitOptions
from pipeline_lib.errors import UserError

UNTRAINED = "untrained"


def place(
    sheet: Sheet,
    ledger: Ledger,
    split: SplitOptions,
    chunk_size: int,
    trained_groups: Collection[str] = (),
    picture_chunk_size: int | None = None,
) -> Ledger:
    """Give every scan of ``sheet`` that is not in ``ledger`` a split and a chunk.

    The old rows are kept as they are, new ones follow. The result does not depend on the order
    of the sheet's rows. A person already in the ledger stays; else the sheet's split column
    decides; else ``split.method``: ``hash`` balances the fractions within each group and
    stratum, ``from_test`` moves whole people from test into validation until validation has as
    many people as a hundredth of the number of training images.

    Args:
        trained_groups: the groups that recipes train on; people of other groups are not placed in
            train by ``hash``. Empty: every group is trained on.
        picture_chunk_size: ``chunk_size`` of pictures, of which there are more and smaller ones than of scans.

    Raises:
        UserError: the sheet contradicts the ledger, or ``from_test`` cannot be carried out.
    """
    persons = _persons(sheet.scans)
    known = _known_splits(persons, ledger)
    assigned = {name: (split_name, "person") for name, split_name in known.items()}
    given = {
        name: next(scan.split for scan in scans if scan.split)
        for name, scans in persons.items()
        if any(scan.split for scan in scans)
    }
    _refuse_contradictions(persons, ledger, known, given)
    assigned |= {name: (given[name], "sheet") for name in given.keys() - known.keys()}
    fresh = sorted(persons.keys() - assigned.keys())
    if split.method == "from_test":
        if fresh:
            raise UserError(
                f"{sheet.path}: split.method from_test needs train or test in the split column of every row; "
                f"{len(fresh)} people have none, e.g. {fresh[0]} (row {persons[fresh[0]][0].row})"
            )
        moved = _moved(sheet, persons, assigned, split.salt)
        assigned |= dict.fromkeys(moved, ("validation", "from_test"))
    else:
        current = {name: split_name for name, (split_name, _) in assigned.items()}
        assigned |= {name: (s, "hash") for name, s in _balanced(persons, current, split, trained_groups).items()}

    new: list[tuple[Scan, str, str]] = []
    for name, scans in persons.items():
        split_name, how = assigned[name]
        new += [(scan, split_name, how) for scan in scans if scan.id not in ledger.by_scan]
    sizes = {"image": picture_chunk_size or chunk_size}
    placed = [(scan, split_name) for scan, split_name, _ in new]
    chunks = _chunks(sheet.scans, placed, ledger, lambda family: sizes.get(family, chunk_size))
    rows = [Placement(s.id, s.participant, split_name, chunks[s.id], how) for s, split_name, how in new]
    return replace(ledger, rows=ledger.rows + tuple(sorted(rows, key=lambda row: (row.chunk, row.scan))))


def _persons(scans: Sequence[Scan]) -> dict[str, list[Scan]]:
    """Person to scans, both in sorted order."""
    person = people(scans)
    found: dict[str, list[Scan]] = defaultdict(list)
    for scan in sorted(scans, key=lambda scan: scan.id):
        found[person[scan.participant]].append(scan)
    return dict(sorted(found.items()))


def _known_splits(persons: Mapping[str, list[Scan]], ledger: Ledger) -> dict[str, str]:
    """Person to the split it has in the ledger."""
    known: dict[str, str] = {}
    torn = []
    for name, scans in persons.items():
        ids = {label for scan in scans for label in (scan.participant, scan.alias)}
        places = {label: ledger.splits[label] for label in sorted(ids) if label in ledger.splits}
        if len(set(places.values())) > 1:
            torn.append(" and ".join(f"{label} in {split}" for label, split in places.items()))
        elif places:
            known[name] = next(iter(places.values()))
    if torn:
        raise UserError(
            f"one person in two splits of the ledger: {shortened(torn)}; the alias column says that they "
            "are one: remove the rows of one from the ledger, so that it follows the other, or correct the alias"
        )
    return known


def _refuse_contradictions(
    persons: Mapping[str, list[Scan]], ledger: Ledger, known: Mapping[str, str], given: Mapping[str, str]
) -> None:
    faults = []
    for name in known.keys() & given.keys():
        moved = any(row.how == "from_test" for s in persons[name] if (row := ledger.by_scan.get(s.id)))
        if given[name] != known[name] and not (moved and given[name] == "test"):
            line = next(scan.row for scan in persons[name] if scan.split)
            faults.append(f"{name} is {given[name]} in the sheet (row {line}) but {known[name]} in the ledger")
    if faults:
        raise UserError(
            f"{shortened(sorted(faults))}; set the split column back, or remove the person's rows from the "
            "ledger (what was trained on or tested with them then runs again)"
        )


def untrained_people(scans: Sequence[Scan], trained_groups: Collection[str]) -> set[str]:
    """People with a group, none of whose groups is trained on; nobody where every group is (``trained_groups`` empty)."""
    if not trained_groups:
        return set()
    persons = {name: {scan.group for scan in scans if scan.group} for name, scans in _persons(scans).items()}
    return {name for name, groups in persons.items() if groups and groups.isdisjoint(trained_groups)}


def _balanced(
    persons: Mapping[str, list[Scan]],
    current: Mapping[str, str],
    options: SplitOptions,
    trained_groups: Collection[str],
) -> dict[str, str]:
    """Splits for the people who have none, so that each group comes nearest to the fractions.

    A group's counts are decided first (:func:`_needs`), so that small strata cannot starve a split
    of a group. They are shared out among the group's strata by what each lacks (people of earlier
    runs counted). The group's new people are then walked stratum by stratum, in hash order within
    each, and each goes to the split that is furthest behind the shares of the people walked so far.
    """
    untrained = untrained_people([scan for scans in persons.values() for scan in scans], trained_groups)
    new: dict[tuple[str, ...], dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    group_counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    stratum_counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for name, scans in persons.items():
        stratum = (UNTRAINED if name in untrained else "", *_stratum(scans, options))
        if name in current:
            group_counts[stratum[:2]][current[name]] += 1
            stratum_counts[stratum][current[name]] += 1
        else:
            new[stratum[:2]][stratum].append(name)

    result: dict[str, str] = {}
    for group, strata in sorted(new.items()):
        fractions = _fractions(options, trained=group[0] != UNTRAINED)
        need = _needs(group_counts[group], sum(map(len, strata.values())), fractions)
        lacking = {
            (stratum, split): max(0.0, fraction * (before.total() + len(names)) - before[split])
            for stratum, names in strata.items()
            for before in [stratum_counts[stratum]]
            for split, fraction in fractions.items()
        }
        all_lack = {split: sum(lacking[stratum, split] for stratum in strata) for split in SPLITS}
        share = dict.fromkeys(SPLITS, 0.0)
        done: Counter[str] = Counter()
        for stratum, names in sorted(strata.items()):
            for name in sorted(names, key=lambda name: _hash(options.salt, name)):
                for split in SPLITS:
                    if all_lack[split] > 0:
                        share[split] += need[split] * lacking[stratum, split] / all_lack[split] / len(names)
                behind = {split: share[split] - done[split] for split in SPLITS if done[split] < need[split]}
                chosen = max(behind, key=lambda split: (round(behind[split], 9), -SPLITS.index(split)))
                done[chosen] += 1
                result[name] = chosen
    return result


def _fractions(options: SplitOptions, *, trained: bool) -> dict[str, float]:
    """Of the three splits; people who are not trained on share validation and test, where there is either."""
    held_out = options.validation + options.test
    if trained or held_out == 0:
        return {"train": options.train, "validation": options.validation, "test": options.test}
    return {"train": 0.0, "validation": options.validation / held_out, "test": options.test / held_out}


def _needs(existing: Mapping[str, int], new: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """How many of ``new`` people each split of a group takes, given those already there."""
    total = sum(existing.values()) + new
    targets = _targets(total, fractions)
    need = dict.fromkeys(SPLITS, 0)
    for _ in range(new):
        behind = {split: targets[split] - existing.get(split, 0) - need[split] for split in SPLITS}
        need[max(SPLITS, key=lambda split: (behind[split], fractions[split]))] += 1
    return need


def _targets(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers nearest to the fractions (largest remainders), and nobody forgotten.

    Each split that is wanted has at least one person where there are enough; of two people one
    is trained on and one tested on; one alone is trained on.
    """
    wanted = sorted((s for s in SPLITS if fractions[s] > 0), key=("train", "test", "validation").index)
    counts = {split: math.floor(total * fractions[split] + 1e-9) for split in SPLITS}
    remainders = sorted(wanted, key=lambda split: counts[split] - total * fractions[split])
    for split in remainders[: total - sum(counts.values())]:
        counts[split] += 1
    for split in wanted[:total]:
        if counts[split] == 0:
            counts[max(counts, key=counts.__getitem__)] -= 1
            counts[split] = 1
    return counts


def _stratum(scans: Sequence[Scan], options: SplitOptions) -> tuple[str, ...]:
    """The values a person is balanced by; the group comes first, and is empty where not wanted."""

    def first(attribute: str) -> str:
        return next((value for scan in scans if (value := str(getattr(scan, attribute)))), "")

    values = [first("group") if "group" in options.stratify else ""]
    for name in options.stratify:
        if name == "age_band":
            age = next((scan.age for scan in scans if scan.age is not None), None)
            values.append("" if age is None else f"{int(age // options.age_band_years):03d}")
        elif name != "group":
            values.append(first(name))
    return tuple(values)


def _hash(salt: str, person: str) -> str:
    return hashlib.sha256(f"{salt}{person}".encode()).hexdigest()


def _moved(
    sheet: Sheet, persons: Mapping[str, list[Scan]], assigned: Mapping[str, tuple[str, str]], salt: str
) -> list[str]:
    """People to move from test into validation (``from_test``)."""
    movable = sorted(
        (name for name, place in assigned.items() if place == ("test", "sheet")),
        key=lambda name: _hash(salt, name),
    )
    if not movable:
        return []
    count = Counter(split for split, _ in assigned.values())
    root = Path(sheet.root)
    images = sum(
        len(matching_files(root, scan.path))
        for name, scans in persons.items()
        if assigned[name][0] == "train"
        for scan in scans
    )
    wanted = math.ceil(images / 100) - count["validation"]
    moved = movable[: max(wanted, 0)]
    if moved and len(moved) == count["test"]:
        raise UserError(
            f"{sheet.path}: split.method from_test needs {wanted} people for validation (one per 100 of the "
            f"{images} training images) and one left to test, but test has {count['test']}; "
            "name validation people in the split column or use split.method hash"
        )
    return moved


def _chunks(
    scans: Sequence[Scan], new: Sequence[tuple[Scan, str]], ledger: Ledger, chunk_size: Callable[[str], int]
) -> dict[str, str]:
    """Chunk of each new scan: its pair's chunk where that exists already, else a new one.

    A source and its target are read from one chunk. So the scans of a pair (of a person and session, unless the
    sheet says otherwise) are never parted, and a chunk can exceed ``chunk_size`` by one less than the scans of
    its last pair.
    """
    chunk_of_pair = {
        (scan.family, scan.pair_key): ledger.by_scan[scan.id].chunk for scan in scans if scan.id in ledger.by_scan
    }
    last: dict[tuple[str, str], int] = defaultdict(int)
    for name in map(ChunkName.parse, ledger.chunk_scans):
        last[name.split, name.family] = max(last[name.split, name.family], name.number)

    result: dict[str, str] = {}
    units: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for scan, split in new:
        if (scan.family, scan.pair_key) in chunk_of_pair:
            result[scan.id] = chunk_of_pair[scan.family, scan.pair_key]
        else:
            units[split, scan.family][scan.pair_key].append(scan.id)
    for (split, family), members in sorted(units.items()):
        room = 0
        for unit in sorted(members):
            if room <= 0:
                last[split, family] += 1
                room = chunk_size(family)
            for scan_id in members[unit]:
                result[scan_id] = str(ChunkName(split, family, last[split, family]))
            room -= len(members[unit])
    return result


def torn_pairs(scans: Sequence[Scan], ledger: Ledger, source: str, target: str) -> list[str]:
    """Pairs of a source and a target modality that an older ledger holds in two chunks."""
    chunks: dict[str, dict[str, str]] = defaultdict(dict)
    for scan in scans:
        if scan.modality in (source, target) and scan.id in ledger.by_scan:
            chunks[scan.pair_key][scan.modality] = ledger.by_scan[scan.id].chunk
    return sorted(key for key, of in chunks.items() if len(of) == 2 and len(set(of.values())) == 2)
