"""The whole DAG on a tiny cohort, and what reruns when something changes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from packed_table import unpacked
from workspace import BROKEN

pytestmark = pytest.mark.dag

TRAINING = {"train_vae", "train_vqgan", "train_regression", "train_denoiser"}
REPORT = {"report_index", "all"}
SHEET = "config/subjects.tsv"


@pytest.fixture(scope="module")
def workspace(finished_workspace):
    return finished_workspace


def rows_of(workspace) -> list[str]:
    return (workspace.folder / SHEET).read_text().splitlines()


def add_rows(workspace, *rows: str):
    return workspace.edited(SHEET, append="".join(row + "\n" for row in rows))


def copy_of(workspace, split: str, name: str) -> list[str]:
    """The anatomical rows of somebody in a split, under another name and with a file of their own."""
    header = rows_of(workspace)[0].split("\t")
    ledger = [line.split("\t") for line in (workspace.folder / "config/splits.tsv").read_text().splitlines()[1:]]
    person = next(row[1] for row in ledger if row[2] == split and row[0].endswith("_T1w") and row[1] != BROKEN)
    values = dict(
        zip(header, next(r for r in rows_of(workspace) if r.startswith(person + "\t")).split("\t"), strict=True)
    )
    source = workspace.folder / values["path"]
    target = source.with_name(f"{name}.nii.gz")
    if not target.exists():
        reseed(source, target)
    path = str(target.relative_to(workspace.folder))
    values |= {"participant": name, "session": "9", "path": path, "split": split, "lesion": ""}
    return ["\t".join(values[column] for column in header)]


def reseed(source: Path, target: Path) -> None:
    """A scan that is not byte-identical to another."""
    import nibabel
    import numpy as np

    image = nibabel.load(source)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data * 1.01, image.affine), target)


def test_everything_is_made(workspace) -> None:
    results = workspace.folder / "results"
    for name in ("index", "anomaly", "synthesis", "generation", "translation", "published"):
        assert (results / "report" / f"{name}.html").is_file()
    for recipe in ("anomaly", "synthesis", "generation", "translation", "published"):
        metrics = json.loads((results / recipe / "evaluation" / "metrics.json").read_text())
        assert metrics, f"{recipe} has no metric"
    inferred = [path.name for path in (results / "anomaly" / "inference").glob("*/nifti/*.nii.gz")]
    native = [path.name for path in (results / "anomaly" / "native").glob("*/*.nii.gz")]
    assert inferred
    assert sorted(name.replace("_space-individual", "") for name in native) == sorted(inferred)


def test_every_result_says_what_made_it(workspace) -> None:
    sidecars = list((workspace.folder / "results").rglob("*provenance.json"))
    assert len(sidecars) > 30
    for sidecar in sidecars:
        made = json.loads(sidecar.read_text())
        assert re.fullmatch("[0-9a-f]{16}", made["code"]), sidecar
        assert made["outputs"], sidecar
        assert str(workspace.folder) not in sidecar.read_text(), "a path of this machine"


def test_nothing_is_left_to_be_done(workspace) -> None:
    plan = workspace.planned()
    assert "Nothing to be done" in plan.output, plan.jobs


def test_slurm_profile_plans_the_same_jobs_with_partitions(workspace) -> None:
    everything = workspace.planned("--forceall", "all")
    slurm = workspace.planned("--profile", "slurm", "--forceall", "all")
    assert slurm.counts == everything.counts


def test_broken_scan_is_excluded_with_its_reason_and_the_rest_goes_on(workspace) -> None:
    results = workspace.folder / "results"
    tables = "\n".join(path.read_text() for path in (results / "cohort").glob("*.tsv"))
    excluded = [line.split("\t") for line in tables.splitlines() if "\tfalse\t" in line]
    assert [row[1] for row in excluded] == ["syn008"]
    index = (results / "report" / "index.html").read_text()
    assert "sub-syn008" in index
    assert "truncated" in index
    assert "bad/id" in index, "the faulty row of the sheet"
    assert "<dt>Command</dt><dd><code>snakemake " in index, "the command of the run"


def test_faulty_row_is_said_at_the_start(workspace) -> None:
    notes = [line for line in workspace.planned().output.splitlines() if line.startswith("NOTE")]
    assert any("bad/id" in line and "row" in line for line in notes)


def test_a_gradient_table_of_equal_size_is_noticed_and_a_touched_one_is_not(workspace) -> None:
    table = next(scan for scan in rows_of(workspace) if "\tdwi\t" in scan).split("\t")
    name = next(value for value in table if value.endswith(".bvec"))
    x, y, z = (workspace.folder / name).read_text().splitlines()
    with workspace.edited(name, (f"{x}\n{y}\n{z}\n", f"{y}\n{x}\n{z}\n")):
        assert workspace.planned().counts["ingest"] == 1
    os.utime(workspace.folder / name)
    assert "Nothing to be done" in workspace.planned().output


def test_a_cohort_is_preprocessed_without_recipes(workspace) -> None:
    values = workspace.configuration()
    del values["recipes"]
    (workspace.folder / "config" / "none.yaml").write_text(yaml.safe_dump(values))
    assert "Nothing to be done" in workspace.snakemake("-n", "preprocessed", config="config/none.yaml").stdout
    refused = workspace.snakemake("-n", "all", check=False, config="config/none.yaml")
    assert refused.returncode
    assert refused.stdout.splitlines()[-1].startswith("configuration: recipes: none given")
    assert "Traceback" not in refused.stdout


def test_new_training_person_says_what_will_be_trained_again(workspace) -> None:
    with add_rows(workspace, *copy_of(workspace, "train", "extratrain")):
        plan = workspace.planned()
    assert {"train_vae", "train_denoiser"} <= set(plan.counts)
    assert "train_vqgan" not in plan.counts, "nothing of diffusion MRI changed"
    assert plan.counts["ingest"] == plan.counts["preprocess"] == 1
    notes = [line for line in plan.output.splitlines() if "will be trained again" in line]
    assert {re.match(r"NOTE (\w+): ", line)[1] for line in notes} == {"anomaly", "synthesis", "generation"}
    assert all("1 new training person: extratrain" in line for line in notes)


def test_training_person_gone_says_what_will_be_trained_again(workspace) -> None:
    header = rows_of(workspace)[0].split("\t")
    group = {row.split("\t")[0]: row.split("\t")[header.index("group")] for row in rows_of(workspace)[1:]}
    ledger = [line.split("\t") for line in (workspace.folder / "config/splits.tsv").read_text().splitlines()[1:]]
    people = [row[1] for row in ledger if row[2] == "train" and row[0].endswith("_T1w") and row[1] != BROKEN]
    person = next(
        name for name in people if group[name] == "CN"
    )  # the only one with AD would leave a group without anybody
    rows = [row for row in rows_of(workspace) if row.startswith(f"{person}\t")]
    with workspace.edited(SHEET, *((row + "\n", "") for row in rows)):
        plan = workspace.planned()
    notes = [line for line in plan.output.splitlines() if "will be trained again" in line]
    assert len(notes) == sum(count for rule, count in plan.counts.items() if rule in TRAINING)
    assert all(f"1 training person gone: {person}" in line for line in notes)


def test_run_time_settings_rerun_nothing(workspace) -> None:
    often = ("checkpoint_every: 2, ema", "checkpoint_every: 1, keep: 3, workers: 1, samples_every: 2, ema")
    with workspace.edited("config/tiny.yaml", often):
        assert "Nothing to be done" in workspace.planned().output


@pytest.mark.parametrize(
    ("old", "new", "expected", "untouched"),
    [
        ("voxel_size: 6.0", "voxel_size: 5.9", {"preprocess", "dataset"} | TRAINING, {"ingest"}),
        ("max_failed_fraction: 0.5", "max_failed_fraction: 0.6", {"cohort_split"}, {"ingest", "preprocess", "dataset"}),
        ("to_mm: 20, every_mm: 10}, train_groups", "to_mm: 10, every_mm: 10}, train_groups",
         {"dataset", "train_denoiser", "infer_anomaly"}, {"preprocess", "train_vae", "train_vqgan"}),
        ("kind: vae, channels: [8, 8]", "kind: vae, channels: [8, 16]",
         {"train_vae", "latents", "train_denoiser"}, {"preprocess", "dataset", "train_vqgan", "infer_anomaly"}),
        ("codes: 16", "codes: 8", {"train_vqgan", "latents", "train_denoiser"}, {"dataset", "train_vae"}),
        ("octaves: 2", "octaves: 3", {"train_denoiser", "infer_anomaly"}, {"dataset", "train_vae", "sample_synthesis"}),
        ("sampling: {steps: 4}", "sampling: {steps: 3}", {"infer_anomaly", "evaluate_anomaly"}, {"dataset"} | TRAINING),
        ("bootstrap: 20", "bootstrap: 21", {"evaluate_anomaly", "report_recipe"}, {"infer_anomaly"} | TRAINING),
        ("note: Synthetic people.", "note: Synthetic.", {"report_scans", "report_recipe", "report_index"},
         {"preprocess", "evaluate_anomaly"} | TRAINING),
    ],
    ids=["preprocess", "cohort", "dataset", "vae", "vqgan", "diffusion", "inference", "evaluation", "report"],
)  # fmt: skip
def test_changed_parameter_reruns_its_stage_and_nothing_before(workspace, old, new, expected, untouched) -> None:
    with workspace.edited("config/tiny.yaml", (old, new)):
        planned = set(workspace.planned().counts)
    assert expected | REPORT <= planned
    assert not untouched & planned


@pytest.mark.parametrize(
    ("module", "expected", "untouched"),
    [
        ("imaging/ingest.py", {"ingest", "preprocess"}, set()),
        ("imaging/registration.py", {"preprocess"}, {"ingest"}),
        ("cohort/summary.py", {"cohort", "cohort_split"}, {"ingest", "preprocess", "dataset"}),
        ("dataset/pack.py", {"dataset"} | TRAINING, {"preprocess"}),
        ("models/autoencoder.py", {"train_vae", "latents"}, {"dataset", "train_vqgan", "infer_anomaly"}),
        ("models/vqgan.py", {"train_vqgan", "latents", "infer_translation"}, {"dataset", "train_vae", "infer_anomaly"}),
        (
            "models/regressor.py",
            {"train_regression", "train_denoiser", "infer_translation"},
            {"fit_floor", "train_vqgan"},
        ),
        ("training/latents.py", {"latents", "train_denoiser"}, {"dataset", "train_vae", "train_vqgan"}),
        (
            "noise/simplex.py",
            {"train_denoiser", "infer_anomaly"},
            {"train_vae", "sample_synthesis", "infer_translation"},
        ),
        ("training/denoiser.py", {"train_denoiser"}, {"train_vae", "train_vqgan", "dataset"}),
        ("inference/anomaly.py", {"infer_anomaly", "evaluate_anomaly"}, {"sample_synthesis", "dataset"} | TRAINING),
        ("evaluation/synthesis.py", {"evaluate_synthesis", "report_recipe"}, {"sample_synthesis"} | TRAINING),
        ("report/index.py", {"report_index"}, {"report_scans", "evaluate_anomaly"} | TRAINING),
    ],
)
def test_edited_module_reruns_its_stage_and_a_comment_in_it_does_not(workspace, module, expected, untouched) -> None:
    with workspace.edited(f"pipeline_lib/{module}", append="\nADDED_BY_THE_TEST = 1\n"):
        planned = set(workspace.planned().counts)
    assert expected | REPORT <= planned
    assert not untouched & planned
    with workspace.edited(f"pipeline_lib/{module}", append="\n# A remark added by the test.\n"):
        assert "Nothing to be done" in workspace.planned().output


def test_configuration_error_is_one_line_without_traceback(workspace) -> None:
    with workspace.edited("config/tiny.yaml", ("voxel_size: 6.0", "voxel_sise: 6.0")):
        done = workspace.snakemake("-n", "all", check=False)
    assert done.returncode != 0
    assert "preprocess.voxel_sise: unknown key; did you mean voxel_size?" in done.stdout
    assert "Traceback" not in done.stdout


# The tests below change the workspace for good, so they stand last.


def test_new_test_person_costs_preprocessing_inference_and_the_report_and_trains_nothing(workspace) -> None:
    ledger = (workspace.folder / "config/splits.tsv").read_text()
    with open(workspace.folder / SHEET, "a") as file:
        file.write("".join(row + "\n" for row in copy_of(workspace, "test", "extratest")))
    ran = workspace.run()
    assert not TRAINING & set(ran.counts)
    assert ran.counts["ingest"] == ran.counts["preprocess"] == ran.counts["infer_anomaly"] == 1
    assert "sample_generation" not in ran.counts
    assert (workspace.folder / "config/splits.tsv").read_text().startswith(ledger), "the ledger only grows"
    listed = unpacked((workspace.folder / "results/report/index.html").read_text(), "scans-table")
    assert "extratest" in {row["participant"] for row in listed}


def test_a_training_job_run_again_unchanged_takes_its_finished_state(workspace) -> None:
    model = workspace.folder / "results/anomaly/diffusion/model.safetensors"
    before = model.read_bytes()
    (model.parent / "provenance.json").unlink()
    ran = workspace.run("results/anomaly/diffusion/provenance.json")
    assert ran.counts["train_denoiser"] == 1
    assert model.read_bytes() == before


def test_failed_scan_is_tried_again_once_it_is_mended(workspace) -> None:
    good = next(row for row in rows_of(workspace) if row.startswith("syn001\t") and "\tT1w\t" in row).split("\t")[3]
    broken = next(row for row in rows_of(workspace) if row.startswith("syn008\t") and "\tT1w\t" in row).split("\t")[3]
    reseed(workspace.folder / good, workspace.folder / broken)
    workspace.run("retry_failed")
    ran = workspace.run("preprocessed")
    assert ran.counts["preprocess"] == 1
    tables = (workspace.folder / "results").glob("preprocess/*/status.tsv")
    assert not any("\tfalse\t" in line for path in tables for line in path.read_text().splitlines())


def test_too_many_failures_stop_the_run_before_training(workspace) -> None:
    with workspace.edited("config/tiny.yaml", ("brain_volume_ml: [200, 4000]", "brain_volume_ml: [200, 201]")):
        done = workspace.snakemake("--cores", "2", "results/anomaly/diffusion/provenance.json", check=False)
    assert done.returncode != 0
    assert "more than cohort.max_failed_fraction 0.5 allows" in done.stdout
    assert "rule train_denoiser" not in done.stdout
    assert "Traceback" not in done.stdout
