"""The sheet: faults of the whole file stop, faults of a row exclude it, all are named at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.cohort.sheet import (
    SPLITS,
    Problem,
    Scan,
    Sheet,
    alike_groups,
    alike_people,
    append_to_sheet,
    people,
    read_sheet,
    summed_up,
    write_sheet,
)
from pipeline_lib.errors import UserError

HEADER = "participant\tsession\tmodality\tpath\tgroup\tage\tsex\tsplit\talias\tpair"


def read(folder: Path, *rows: str, header: str = HEADER) -> Sheet:
    path = folder / "subjects.tsv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_sheet(path, folder)


def columns_of(problems: Sequence[Problem]) -> list[tuple[int | None, str | None]]:
    return [(problem.row, problem.column) for problem in problems]


GOOD = "01\t1\tT1w\ta.nii.gz\tCN\t40\tF"
ALSO_GOOD = "02\t1\tT1w\tb.nii.gz\tCN\t50\tM"


def test_a_row_becomes_a_scan(tmp_path: Path) -> None:
    sheet = read(tmp_path, "sub-01\tses-1\tT1w\ta.nii.gz\tCN\t40.5\tfemale", "02\t\tFLAIR\tb.nii.gz\tCN\tn/a\tm")
    assert sheet.problems == ()
    assert sheet.scans[0] == Scan("01", "1", "T1w", "a.nii.gz", group="CN", age=40.5, sex="F", row=2)
    assert [scan.id for scan in sheet.scans] == ["sub-01_ses-1_T1w", "sub-02_FLAIR"]
    assert (sheet.scans[1].age, sheet.scans[1].sex, sheet.scans[1].family) == (None, "M", "anat")


@pytest.mark.parametrize("encode", [lambda t: ("\ufeff" + t).encode(), lambda t: t.replace("\n", "\r\n").encode()])
def test_spreadsheet_habits_are_tolerated(tmp_path: Path, encode) -> None:
    path = tmp_path / "subjects.tsv"
    path.write_bytes(encode(f"{HEADER}\n{GOOD}\n\n{ALSO_GOOD}\t\t\n"))
    sheet = read_sheet(path, tmp_path)
    assert sheet.problems == ()
    assert [scan.row for scan in sheet.scans] == [2, 4], "a blank line is skipped, and counted"


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ("a/b\t1\tT1w\tx.nii", "participant", "write ab"),
        ("a b\t1\tT1w\tx.nii", "participant", "write ab"),
        ("..\t1\tT1w\tx.nii", "participant", "give it a name of letters and digits"),
        ("a_b\t1\tT1w\tx.nii", "participant", "letters and digits only"),
        ("sub-\t1\tT1w\tx.nii", "participant", "letters and digits only"),
        ("\t1\tT1w\tx.nii", "participant", "empty"),
        ("p\t1 2\tT1w\tx.nii", "session", "write 12"),
        ("p\t1\tt1\tx.nii", "modality", "did you mean T1w?"),
        ("p\t1\tspectroscopy\tx.nii", "modality", "write one of T1w, T2w"),
        ("p\t1\tT1w\t", "path", "empty"),
        ("p\t1\tT1w\tx.nii\tC/N", "group", "remove slashes"),
        ("p\t1\tT1w\tx.nii\tCN\t40\tF\tvalid", "split", "did you mean validation?"),
        ("p\t1\tT1w\tx.nii\tCN\t40\tF\ttrain\t../q", "alias", "letters and digits only"),
        ("01\t1\tT1w\tother.nii\tCN", "participant", "already in row 2"),
        (f"p\t1\tT1w\tx.nii\t{'G' * 101}", "group", "101 characters"),
        ("p\t1\tT1w\tx.nii\talone", "group", "group alone has one person"),
        ("p\t1\tdwi\tx.nii\tCN", None, "bvec"),
        ("1.0\t1\tT1w\tx.nii\tCN", "participant", "write 1"),
        (f"{'p' * 65}\t1\tT1w\tx.nii\tCN", "participant", "at most 64"),
        (f"p\t1\tT1w\t{'x' * 256}\tCN", "path", "a name of 256 bytes"),
        ("p\t1\tT1w\tx\0.nii\tCN", None, "control character"),
        ('p\t1\tT1w\tx.nii\t"CN" group', None, "quotation mark"),
        ('p\t1\tT1w\tx.nii\t"CN', None, "quotation mark"),
        ("p\t1\tT1w\tx.nii\tCN\t40\tF\ttrain\tq\t\tstray", None, "stray tab"),
    ],
)
def test_a_faulty_row_is_left_out_and_the_rest_goes_on(
    tmp_path: Path, row: str, column: str | None, message: str
) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD, row)
    assert [scan.participant for scan in sheet.scans] == ["01", "02"]
    ((scan, problem),) = sheet.excluded
    assert (scan.row, problem.row, problem.column) == (4, 4, column)
    assert message in str(problem)
    assert str(problem).startswith(f"{tmp_path / 'subjects.tsv'}, row 4")
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ("\tforty", "age", "not a number of years"),
        ("\t-4", "age", "not a number of years"),
        ("\t89+", "age", "not a number of years"),
        ("\t480", "age", "years, not months"),
        ("\t40\tQ", "sex", "write M, F or O"),
        ("NA\t40\tF", "group", "taken as missing"),
    ],
)
def test_what_is_not_understood_of_a_person_is_unknown_and_said(
    tmp_path: Path, cells: str, column: str, message: str
) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD, *(f"p{n}\t1\tT1w\tx{n}.nii\t{cells}" for n in range(3)))
    assert len(sheet.scans) == 5
    assert {getattr(scan, column) for scan in sheet.scans[2:]} <= {None, ""}
    assert columns_of(sheet.problems) == [(row, column) for row in (4, 5, 6)]
    (line,) = summed_up(sheet.problems)
    assert "3 rows, the first row 4" in line
    assert message in line


@pytest.mark.parametrize(("written", "age"), [("34,5", 34.5), ("067Y", 67.0), ("018M", 1.5), ("42.", 42.0)])
def test_other_ways_to_write_an_age_are_read(tmp_path: Path, written: str, age: float) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD, f"p\t1\tT1w\tx.nii\tCN\t{written}")
    assert sheet.scans[2].age == age
    assert not sheet.problems


def test_where_every_row_is_faulty_their_faults_are_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="every row has a fault .* 9 rows, the first row 2, column participant: '0.0'"
    ) as raised:
        read(tmp_path, *(f"{n}.0\t1\tT1w\tx.nii\tCN" for n in range(9)))
    assert str(raised.value).count("letters and digits") == 1


def test_a_label_that_two_ids_would_share_is_not_advised(tmp_path: Path) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD, "P-1-23\t1\tT1w\tx.nii", "P-12-3\t1\tT1w\ty.nii", "1.0\t1\tT1w\tz.nii")
    assert ["of its own" in str(problem) for problem in sheet.problems] == [True, True, False]


def test_people_whose_ids_differ_only_in_zeros_or_case_are_found() -> None:
    scans = [Scan(person, "", "T1w", "x") for person in ("001", "1", "P2", "10", "100")]
    assert alike_people([*scans, Scan("p2", "", "T1w", "x", alias="P2")]) == [("001", "1")]


def test_lesions_are_a_mask_none_or_unknown(tmp_path: Path) -> None:
    header = "participant\tmodality\tpath\tlesion"
    sheet = read(tmp_path, "1\tT1w\ta\tm.nii", "2\tT1w\tb\tNone", "3\tT1w\tc\t", "4\tT1w\td\tn/a", header=header)
    assert [scan.lesion_state for scan in sheet.scans] == ["mask", "none", "", ""]
    assert [scan.lesion_mask for scan in sheet.scans] == ["m.nii", "", "", ""]


def test_further_columns_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    header = "participant\tmodality\tpath\tmmse\thand\tnotes"
    path = tmp_path / "subjects.tsv"
    path.write_text(f"{header}\n1\tT1w\ta\t28,5\tleft\tx\n2\tT1w\tb\tlow\t\ty\n")
    sheet = read_sheet(path, tmp_path, {"mmse": "number", "hand": "category"})
    assert [scan.covariates for scan in sheet.scans] == [
        (("mmse", 28.5), ("hand", "left")),
        (),
    ]
    assert columns_of(sheet.problems) == [(None, "notes"), (3, "mmse")]
    with pytest.raises(UserError, match="no column MMSE, .* did you mean mmse?"):
        read_sheet(path, tmp_path, {"MMSE": "number"})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", "\t;,")
def test_encodings_and_separators_of_spreadsheets_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    rows = [["Participant", "MODALITY", "path", "site"], ["1", "T1w", "a", "Köln"], ["2", "T1w", "b", "Malmö"]]
    text = "# exported\n\n" + "\n".join(delimiter.join(row) for row in rows) + "\n"
    (tmp_path / "s.tsv").write_bytes(text.encode(encoding))
    sheet = read_sheet(tmp_path / "s.tsv", tmp_path)
    assert [(scan.participant, scan.site, scan.row) for scan in sheet.scans] == [("1", "Köln", 4), ("2", "Malmö", 5)]
    assert len(sheet.problems) == (encoding == "cp1252"), "a guess is said"


def test_excels_first_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("sep=;\nparticipant;modality;path\n01;T1w;a.nii.gz\n")
    assert [scan.id for scan in read_sheet(path, tmp_path).scans] == ["sub-01_T1w"]


def test_groups_that_differ_only_in_case_are_found() -> None:
    scans = [Scan(str(n), "", "T1w", "a.nii", group=group) for n, group in enumerate(("AD", "ad", "CN", ""))]
    assert alike_groups(scans) == [("AD", "ad")]


@pytest.mark.parametrize(("written", "meant"), [("MPRAGE", "T1w"), ("t1", "T1w"), ("DTI", "dwi"), ("T2", "T2w")])
def test_other_names_of_a_modality_are_understood_but_not_taken(tmp_path: Path, written: str, meant: str) -> None:
    path = tmp_path / "s.tsv"
    path.write_text(f"participant\tmodality\tpath\n01\t{written}\ta.nii\n02\tT1w\tb.nii\n")
    assert f"unknown modality {written!r}; did you mean {meant}?" in str(read_sheet(path, tmp_path).problems[0])


@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.text("pa\tx\n\r\"';,#0.\0\x85\u2028ü", max_size=200).map(
            lambda text: f"participant\tmodality\tpath\n{text}".encode()
        ),
    )
)
def test_no_bytes_make_a_sheet_fall(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "s.tsv"
    path.write_bytes(content)
    try:
        sheet = read_sheet(path)
    except UserError:
        return
    assert sheet.scans


cell = st.one_of(
    st.sampled_from(
        ("01", "sub-01", "1.0", "T1w", "dwi", "image", "none", "NA", "n/a", "89+", "train", "F", '"', "a\0", "x" * 99)
    ),
    st.text(max_size=6).filter(lambda text: not set(text) & set("\t\n\r")),
)


@given(rows=st.lists(st.lists(cell, max_size=12), max_size=6))
def test_no_cells_make_a_sheet_fall(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "s.tsv"
    path.write_bytes("\n".join([HEADER, *("\t".join(row) for row in rows)]).encode("utf-8", "surrogatepass"))
    try:
        sheet = read_sheet(path)
    except UserError:
        return
    lines = {scan.row for scan in sheet.scans} | {scan.row for scan, _ in sheet.excluded}
    assert {scan.row for scan in sheet.scans}.isdisjoint(scan.row for scan, _ in sheet.excluded)
    assert len(lines) == len(sheet.scans) + len(sheet.excluded)
    assert all(len(scan.id) < 200 for scan in sheet.scans)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    header = f"{HEADER}\tgander"
    sheet = read(tmp_path, "a/b\t1\tT9w\t\tCN\t400", GOOD, ALSO_GOOD, "01\t1\tT1w\tagain.nii\tCN", header=header)
    assert columns_of(sheet.problems) == [
        (None, "gander"),
        (2, "path"),
        (2, "participant"),
        (2, "modality"),
        (2, "age"),
        (5, "participant"),
    ]
    assert len(sheet.excluded) == 2, "one entry a row, however many faults it has"
    assert "modality: unknown" in sheet.excluded[0][1].message


@pytest.mark.parametrize(
    ("column", "hint"),
    [("gender", "did you mean sex?"), ("modalty", "did you mean modality?"), ("qqq", "known columns")],
)
def test_an_unknown_column_is_named(tmp_path: Path, column: str, hint: str) -> None:
    sheet = read(tmp_path, "01\tT1w\ta.nii\tx", header=f"participant\tmodality\tpath\t{column}")
    assert len(sheet.scans) == 1
    assert columns_of(sheet.problems) == [(None, column)]
    assert hint in str(sheet.problems[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"participant modality path\n01 T1w a\n", "separated by spaces"),
        (b"PK\x03\x04...", "workbook; save it as text"),
        (b"\x1f\x8b...", "compressed"),
        (b"participant\tmodality\tpath\n", "there are no rows"),
        (b"participant_id\tpath\n01\ta\n", "participant is missing; rename participant_id; .*modality is missing"),
        (b"participant\tmodality\tpath\tpath\n01\tT1w\ta\tb\n", "path appears twice"),
        ("participant\tmodality\tpath\n".encode("utf-16"), "there are no rows"),
        (b'participant\t"modality\tpath\n01\tT1w\ta\n', "row 1, the names of the columns, has a stray quotation"),
        (b'participant\tmodality\tpath\n"01\tT1w\ta\n', "every row has a fault .* row 2: .* quotation mark"),
    ],
)
def test_a_fault_of_the_whole_file_stops(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "subjects.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_sheet(path, tmp_path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_missing_sheet_and_missing_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="from-bids"):
        read_sheet(tmp_path / "none.tsv")
    (tmp_path / "subjects.tsv").write_text("participant\tmodality\tpath\n01\tT1w\ta\n")
    with pytest.raises(UserError, match=r"cohort\.root"):
        read_sheet(tmp_path / "subjects.tsv", tmp_path / "nowhere")


def test_one_person_in_two_splits_is_left_out(tmp_path: Path) -> None:
    sheet = read(
        tmp_path,
        GOOD,
        ALSO_GOOD,
        "03\t1\tT1w\tc.nii\tCN\t60\tF\ttrain\tX",
        "04\t1\tT1w\td.nii\tCN\t60\tF\ttest\tX",
    )
    assert [scan.participant for scan in sheet.scans] == ["01", "02"]
    assert columns_of(sheet.problems) == [(4, "split"), (5, "split")]


def test_two_ids_of_one_person_do_not_make_a_group(tmp_path: Path) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD, "03\t1\tT1w\tc.nii\tAD\t\t\t\t04", "04\t1\tT1w\td.nii\tAD")
    assert columns_of(sheet.problems) == [(4, "group"), (5, "group")]


def test_a_pair_is_of_one_person(tmp_path: Path) -> None:
    rows = ["01\t1\tnoddi\ta.nii\tCN\t\t\t\t\tk", "02\t1\tnoddi\tb.nii\tCN\t\t\t\t\tk", "03\t1\tnoddi\tc.nii\tCN"]
    sheet = read(tmp_path, *rows)
    assert columns_of(sheet.problems) == [(3, "pair")]


def test_people_are_the_components_of_ids_and_aliases() -> None:
    def scan(participant: str, alias: str = "") -> Scan:
        return Scan(participant, "", "T1w", "x", alias=alias)

    assert people([scan("a", "c"), scan("b", "X"), scan("c", "X"), scan("d")]) == {
        "a": "a",
        "b": "a",
        "c": "a",
        "d": "d",
    }


labels = st.text("abc019", min_size=1, max_size=4)
rows = st.builds(
    Scan,
    participant=labels,
    session=st.one_of(st.just(""), labels),
    modality=st.sampled_from(("T1w", "FLAIR", "noddi", "image")),
    path=st.text("abc/._-*", min_size=1, max_size=9),
    age=st.one_of(st.none(), st.integers(0, 120).map(float)),
    sex=st.sampled_from(("", "M", "F", "O")),
    site=labels,
    split=st.sampled_from(("", *SPLITS)),
)


@given(scans=st.lists(rows, min_size=1, max_size=8, unique_by=lambda scan: scan.participant))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, scans: list[Scan]) -> None:
    path = tmp_path_factory.mktemp("sheet") / "subjects.tsv"
    write_sheet(path, scans)
    sheet = read_sheet(path)
    assert not sheet.problems
    assert [vars(scan) | {"row": 0} for scan in sheet.scans] == [vars(scan) for scan in scans]


def test_new_scans_are_added_below_and_the_rows_before_stay_as_they_were(tmp_path: Path) -> None:
    sheet = read(tmp_path, GOOD, ALSO_GOOD)
    before = (tmp_path / "subjects.tsv").read_text()
    new = Scan("03", "1", "T1w", "c.nii.gz", group="CN")
    assert append_to_sheet(tmp_path / "subjects.tsv", [*sheet.scans, new]) == 1
    assert (tmp_path / "subjects.tsv").read_text().startswith(before)
    assert [scan.id for scan in read_sheet(tmp_path / "subjects.tsv", tmp_path).scans] == [
        *(scan.id for scan in sheet.scans),
        new.id,
    ]
    with pytest.raises(UserError, match="no column lesion"):
        append_to_sheet(tmp_path / "subjects.tsv", [Scan("04", "1", "T1w", "d.nii.gz", lesion="l.nii.gz")])


def test_further_columns_are_read_as_what_they_are_declared(tmp_path: Path) -> None:
    """Digits of a category stay text; an empty cell says nothing; a number that is none is missing, and said."""
    path = tmp_path / "subjects.tsv"
    rows = ["01\tT1w\ta.nii\t12\t33", "02\tT1w\tb.nii\tn/a\t34", "03\tT1w\tc.nii\ttwelve\t"]
    path.write_text("\n".join(["participant\tmodality\tpath\teducation\tgenotype", *rows]) + "\n")
    sheet = read_sheet(path, tmp_path, {"education": "number", "genotype": "category"})
    assert [scan.covariates for scan in sheet.scans] == [
        (("education", 12.0), ("genotype", "33")),
        (("genotype", "34"),),
        (),
    ]
    assert columns_of(sheet.problems) == [(4, "education")]
    assert "'twelve' is not a number" in sheet.problems[0].message
    assert {problem.column for problem in read_sheet(path, tmp_path).problems} == {"education", "genotype"}, (
        "not declared"
    )


def test_a_declared_column_must_be_there_and_not_be_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "subjects.tsv"
    path.write_text("participant\tmodality\tpath\n01\tT1w\ta.nii\n")
    with pytest.raises(UserError, match=r"no column education, which cohort\.covariates names"):
        read_sheet(path, tmp_path, {"education": "number"})
    with pytest.raises(UserError, match="path is read as it is"):
        read_sheet(path, tmp_path, {"path": "category"})
