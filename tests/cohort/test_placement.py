"""People, not scans, are placed; a placement is final; chunks never mix."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.cohort.ledger import Ledger
from pipeline_lib.cohort.placement import place, torn_pairs, untrained_people
from pipeline_lib.cohort.sheet import SPLITS, Scan, Sheet, people
from pipeline_lib.config.schema import SplitOptions
from pipeline_lib.errors import UserError

OPTIONS = SplitOptions()


def sheet_of(scans: list[Scan], root: Path | str = ".") -> Sheet:
    return Sheet("subjects.tsv", tuple(replace(scan, row=row) for row, scan in enumerate(scans, 2)), (), (), str(root))


def person(name: str, group: str = "CN", **more) -> Scan:
    return Scan(name, more.pop("session", ""), more.pop("modality", "T1w"), "x.nii.gz", group=group, **more)


def crowd(count: int, group: str = "CN", prefix: str = "p") -> list[Scan]:
    return [
        person(f"{prefix}{i:04d}", group, age=20.0 + 7 * i % 65, sex="MF"[i % 2]) for i in range(count)
    ]  # fmt: skip


def count_splits(ledger: Ledger) -> Counter[str]:
    return Counter({row.participant: row.split for row in ledger.rows}.values())


labels = st.sampled_from([f"{letter}{n}" for letter in "abcd" for n in range(10)])
scans = st.builds(
    Scan,
    participant=labels,
    session=st.sampled_from(("", "1", "2")),
    modality=st.sampled_from(("T1w", "FLAIR", "noddi", "image")),
    path=st.just("x"),
    group=st.sampled_from(("", "CN", "AD")),
    age=st.one_of(st.none(), st.integers(20, 90).map(float)),
    sex=st.sampled_from(("", "M", "F")),
    site=st.sampled_from(("", "s1", "s2")),
    alias=st.one_of(st.just(""), st.just(""), st.sampled_from(("X", "Y", "a1", "b2"))),
)
cohorts = st.lists(scans, min_size=1, max_size=40, unique_by=lambda scan: scan.id)
chunk_sizes = st.sampled_from((1, 3, 50))


@given(cohort=cohorts, chunk_size=chunk_sizes, random=st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(cohort: list[Scan], chunk_size: int, random) -> None:
    shuffled = random.sample(cohort, len(cohort))
    assert place(sheet_of(cohort), Ledger(), OPTIONS, chunk_size) == place(
        sheet_of(shuffled), Ledger(), OPTIONS, chunk_size
    )


@given(cohort=cohorts, chunk_size=chunk_sizes)
def test_a_person_is_in_one_split_and_a_chunk_in_one_split_and_family(cohort: list[Scan], chunk_size: int) -> None:
    ledger = place(sheet_of(cohort), Ledger(), OPTIONS, chunk_size)
    assert sorted(row.scan for row in ledger.rows) == sorted(scan.id for scan in cohort)
    person_of = people(cohort)
    splits = defaultdict(set)
    for row in ledger.rows:
        splits[person_of[row.participant]].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    family = {scan.id: scan.family for scan in cohort}
    for row in ledger.rows:
        name = ChunkName.parse(row.chunk)
        assert (name.split, name.family) == (row.split, family[row.scan])


@given(cohort=cohorts, cut=st.integers(0, 40), chunk_size=chunk_sizes)
def test_adding_scans_moves_nobody_and_opens_new_chunks(cohort: list[Scan], cut: int, chunk_size: int) -> None:
    plain = [replace(scan, alias="") for scan in cohort]
    before = place(sheet_of(plain[:cut]), Ledger(), OPTIONS, chunk_size)
    after = place(sheet_of(plain), before, OPTIONS, chunk_size)
    assert after.rows[: len(before.rows)] == before.rows
    assert place(sheet_of(plain), after, OPTIONS, chunk_size) == after, "placing again changes nothing"
    pairs = {scan.id: (scan.family, scan.pair_key) for scan in plain}
    old = {pairs[row.scan] for row in before.rows}
    for row in after.rows[len(before.rows) :]:
        assert (row.chunk in before.chunk_scans) == (pairs[row.scan] in old), "new chunks, but for the rest of a pair"
    chunks = defaultdict(set)
    for row in after.rows:
        chunks[pairs[row.scan]].add(row.chunk)
    assert all(len(found) == 1 for found in chunks.values()), "a pair lies in one chunk"


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4), salt=st.sampled_from("12345"))
def test_every_group_is_in_every_split_and_near_the_fractions(sizes: list[int], salt: str) -> None:
    cohort = [scan for n, size in enumerate(sizes) for scan in crowd(size, f"g{n}", f"g{n}p")]
    ledger = place(sheet_of(cohort), Ledger(), replace_salt(salt), 50)
    group_of = {scan.participant: scan.group for scan in cohort}
    for n, size in enumerate(sizes):
        found = Counter(split for name, split in ledger.splits.items() if group_of[name] == f"g{n}")
        if size >= 3:
            assert set(found) == set(SPLITS)
        elif size == 2:
            assert set(found) == {"train", "test"}
        for split, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            assert abs(found[split] - fraction * size) < 1.5


def replace_salt(salt: str) -> SplitOptions:
    return OPTIONS.model_copy(update={"salt": salt})


def test_strata_are_balanced() -> None:
    cohort = crowd(400)
    ledger = place(sheet_of(cohort), Ledger(), OPTIONS, 50)
    assert count_splits(ledger) == {"train": 280, "validation": 60, "test": 60}
    strata = defaultdict(Counter)
    for scan in cohort:
        assert scan.age is not None
        strata[scan.sex, scan.age // 20][ledger.splits[scan.participant]] += 1
    for found in strata.values():
        assert abs(found["train"] - 0.7 * found.total()) <= 1.5
        assert abs(found["test"] - 0.15 * found.total()) <= 1.5


def test_people_added_one_at_a_time_keep_the_fractions() -> None:
    ledger = Ledger()
    cohort = crowd(100)
    for n in range(1, len(cohort) + 1):
        ledger = place(sheet_of(cohort[:n]), ledger, OPTIONS, 50)
    assert count_splits(ledger) == {"train": 70, "validation": 15, "test": 15}


def test_salt_decides_who_goes_where() -> None:
    cohort = sheet_of(crowd(60))
    one, other = (place(cohort, Ledger(), replace_salt(salt), 50) for salt in "12")
    assert one.splits != other.splits
    assert place(cohort, one, replace_salt("2"), 50) == one, "a new salt leaves those already placed"


def test_split_column_wins_and_counts_towards_the_fractions() -> None:
    cohort = [replace(scan, split="test") if i < 3 else scan for i, scan in enumerate(crowd(20))]
    ledger = place(sheet_of(cohort), Ledger(), OPTIONS, 50)
    rows = {row.participant: row for row in ledger.rows}
    assert all((rows[f"p{i:04d}"].split, rows[f"p{i:04d}"].how) == ("test", "sheet") for i in range(3))
    assert count_splits(ledger) == {"train": 14, "validation": 3, "test": 3}


def test_another_session_site_or_alias_follows_its_person() -> None:
    before = place(sheet_of(crowd(10)), Ledger(), OPTIONS, 50)
    new = [person("p0003", session="2", site="elsewhere"), person("q7", alias="p0004"), person("q8", alias="q7")]
    after = place(sheet_of(crowd(10) + new), before, OPTIONS, 50)
    assert after.splits["q7"] == after.splits["q8"] == before.splits["p0004"]
    assert after.by_scan["sub-p0003_ses-2_T1w"].split == before.splits["p0003"]
    assert {row.how for row in after.rows[10:]} == {"person"}


def test_an_id_that_left_the_sheet_is_still_known() -> None:
    before = place(sheet_of(crowd(10)), Ledger(), OPTIONS, 50)
    for old, split in before.splits.items():
        assert place(sheet_of([person("new", alias=old)]), before, OPTIONS, 50).splits["new"] == split


@pytest.mark.parametrize("overfull", ["f", "m"])
def test_new_people_make_up_for_what_a_stratum_lacks(overfull: str) -> None:
    trained = [person(f"{overfull}{i}", sex=overfull.upper(), split="train") for i in range(10)]
    new = [person(f"{sex}{i + 10}", sex=sex.upper()) for sex in "fm" for i in range(10)]
    ledger = place(sheet_of(trained + new), Ledger(), OPTIONS, 50)
    assert count_splits(ledger)["train"] == 21
    for sex in "fm":
        found = Counter(ledger.splits[f"{sex}{i + 10}"] for i in range(10))
        wanted = (4, 3, 3) if sex == overfull else (7, 1.5, 1.5)
        assert all(abs(found[split] - want) <= 1 for split, want in zip(SPLITS, wanted, strict=True))


def test_contradictions_with_the_ledger_say_what_to_do() -> None:
    before = place(sheet_of(crowd(10)), Ledger(), OPTIONS, 50)
    trained = next(name for name, split in before.splits.items() if split == "train")
    tested = next(name for name, split in before.splits.items() if split == "test")
    moved = [replace(scan, split="test") if scan.participant == trained else scan for scan in crowd(10)]
    with pytest.raises(UserError, match=f"{trained} is test in the sheet .* but train in the ledger; set the split"):
        place(sheet_of(moved), before, OPTIONS, 50)
    same = [replace(scan, alias=tested) if scan.participant == trained else scan for scan in crowd(10)]
    with pytest.raises(UserError, match="one person in two splits of the ledger: .* remove the rows of one"):
        place(sheet_of(same), before, OPTIONS, 50)


def test_chunks_are_filled_and_a_pair_is_not_parted() -> None:
    pairs = [person(f"d{i}", session="1", modality=m) for i in range(4) for m in ("dwi", "noddi")]
    cohort = [replace(scan, split="train") for scan in crowd(7) + pairs]
    ledger = place(sheet_of(cohort), Ledger(), OPTIONS, 3)
    sizes = {name: len(found) for name, found in ledger.chunk_scans.items()}
    assert sizes == {
        "train-anat-0001": 3, "train-anat-0002": 3, "train-anat-0003": 1, "train-dmri-0001": 4, "train-dmri-0002": 4,
    }  # fmt: skip
    for i in range(4):
        chunks = {ledger.by_scan[f"sub-d{i}_ses-1_{m}"].chunk for m in ("dwi", "noddi")}
        assert len(chunks) == 1


def test_the_other_half_of_a_pair_joins_its_chunk() -> None:
    first = [replace(person("d", session="1", modality="dwi"), split="train")]
    before = place(sheet_of(first), Ledger(), OPTIONS, 1)
    after = place(sheet_of([*first, person("d", session="1", modality="noddi")]), before, OPTIONS, 1)
    assert after.chunk_scans["train-dmri-0001"] == ("sub-d_ses-1_dwi", "sub-d_ses-1_noddi")


@pytest.mark.parametrize("stratify", [["group", "sex"], []])
def test_groups_that_no_recipe_trains_on_are_held_out(stratify: list) -> None:
    cohort = crowd(20) + crowd(10, "AD", "a") + crowd(4, "", "u")
    options = OPTIONS.model_copy(update={"stratify": stratify})
    ledger = place(sheet_of(cohort), Ledger(), options, 50, {"CN"})
    of = {
        group: Counter(ledger.splits[scan.participant] for scan in cohort if scan.group == group)
        for group in ("CN", "AD")
    }
    assert of["AD"] == {"validation": 5, "test": 5}
    assert set(of["CN"]) == set(SPLITS)
    everybody = place(sheet_of(cohort), Ledger(), options, 50)
    assert any(everybody.splits[scan.participant] == "train" for scan in cohort if scan.group == "AD")
    later = place(sheet_of(cohort + crowd(6, "AD", "b")), everybody, options, 50, {"CN"})
    assert later.rows[: len(everybody.rows)] == everybody.rows, "who was placed before stays"
    assert {later.splits[f"b{i:04d}"] for i in range(6)} <= {"validation", "test"}


def test_a_patient_with_a_trained_session_may_train() -> None:
    scans = [person("c", "CN", session="1"), person("c", "AD", session="2"), person("p", "AD"), person("n", "")]
    assert untrained_people(scans, {"CN"}) == {"p"}
    assert untrained_people(scans, ()) == set()


def test_pairs_that_an_older_ledger_tore_are_found() -> None:
    scans = [person(name, modality=modality) for name in ("p", "q") for modality in ("T1w", "FLAIR")]
    ledger = place(sheet_of(scans), Ledger(), OPTIONS, 50)
    assert torn_pairs(scans, ledger, "T1w", "FLAIR") == []
    rows = tuple(replace(row, chunk="train-anat-0009") if row.scan == "sub-p_T1w" else row for row in ledger.rows)
    assert torn_pairs(scans, Ledger(rows), "T1w", "FLAIR") == ["p/"]


FROM_TEST = SplitOptions(method="from_test")


def pictures(folder: Path, split: str, patients: int, slices: int) -> list[Scan]:
    (folder / split).mkdir()
    for i in range(patients):
        for k in range(slices):
            (folder / split / f"{split}{i:03d}_{k}.png").touch()
    return [Scan(f"{split}{i:03d}", "", "image", f"{split}/{split}{i:03d}_*.png", split=split) for i in range(patients)]


def test_from_test_moves_a_hundredth_of_the_training_images_as_patients(tmp_path: Path) -> None:
    train, test = pictures(tmp_path, "train", 20, 21), pictures(tmp_path, "test", 12, 2)
    ledger = place(sheet_of(train + test, tmp_path), Ledger(), FROM_TEST, 50)
    assert count_splits(ledger) == {"train": 20, "validation": 5, "test": 7}, "420 images: 5 patients"
    assert {row.participant[:4] for row in ledger.rows if row.split == "validation"} == {"test"}
    assert place(sheet_of(train + test, tmp_path), ledger, FROM_TEST, 50) == ledger, "the sheet still says test"

    more = [person(f"late{i}", group="", split="train") for i in range(100)]
    assert count_splits(place(sheet_of(train + test + more, tmp_path), ledger, FROM_TEST, 50)) == {
        "train": 120, "validation": 5, "test": 7,
    }, "people in the ledger stay, though 520 images want 6 patients"  # fmt: skip


def test_from_test_counts_the_validation_people_of_the_sheet(tmp_path: Path) -> None:
    train, test = pictures(tmp_path, "train", 10, 30), pictures(tmp_path, "test", 6, 1)
    given = [person("v1", split="validation"), person("v2", split="validation")]
    ledger = place(sheet_of([*train, *test, *given], tmp_path), Ledger(), FROM_TEST, 50)
    assert count_splits(ledger) == {"train": 10, "validation": 3, "test": 5}


def test_from_test_needs_enough_patients_and_a_split_for_each(tmp_path: Path) -> None:
    train, test = pictures(tmp_path, "train", 10, 30), pictures(tmp_path, "test", 3, 1)
    with pytest.raises(UserError, match="needs 3 people for validation .* 300 training images.* test has 3"):
        place(sheet_of(train + test, tmp_path), Ledger(), FROM_TEST, 50)
    with pytest.raises(UserError, match="1 people have none, e.g. p"):
        place(sheet_of([*train, *test, person("p")], tmp_path), Ledger(), FROM_TEST, 50)
