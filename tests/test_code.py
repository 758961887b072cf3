"""A stage's code hash changes with the code the stage runs, and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.code import code_hash, imported_modules


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    for name in ("pipeline_lib", "workflow"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def hash_of(checkout: Path, script: str, *modules: str) -> str:
    program = (
        "import sys; from pipeline_lib.code import code_hash; "
        f"print(code_hash('workflow/scripts/{script}.py', *{modules!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def edit(checkout: Path, module: str, text: str) -> None:
    with open(checkout / "pipeline_lib" / module, "a") as file:
        file.write(text)


def test_comment_and_blank_line_do_not_count(checkout: Path) -> None:
    before = hash_of(checkout, "preprocess")
    edit(checkout, "imaging/registration.py", "\n\n# a remark\n")
    assert hash_of(checkout, "preprocess") == before


def test_code_counts_for_the_stages_that_import_it_and_no_other(checkout: Path) -> None:
    before = {script: hash_of(checkout, script) for script in ("preprocess", "dataset", "ingest")}
    edit(checkout, "imaging/registration.py", "\nADDED = 1\n")
    assert hash_of(checkout, "preprocess") != before["preprocess"]
    assert hash_of(checkout, "dataset") == before["dataset"]
    assert hash_of(checkout, "ingest") == before["ingest"]


def test_module_chosen_by_configuration_counts_where_it_is_chosen(checkout: Path) -> None:
    chosen = ("pipeline_lib.models.vqgan",)
    with_vqgan, without = hash_of(checkout, "latents", *chosen), hash_of(checkout, "latents")
    edit(checkout, "models/vqgan.py", "\nADDED = 1\n")
    assert hash_of(checkout, "latents", *chosen) != with_vqgan
    assert hash_of(checkout, "latents") == without


def test_vqgan_is_not_part_of_what_vae_training_runs(repository: Path) -> None:
    scripts = repository / "workflow" / "scripts"
    assert "pipeline_lib.models.vqgan" in imported_modules(scripts / "train_vqgan.py")
    assert "pipeline_lib.models.vqgan" not in imported_modules(scripts / "train_vae.py")
    assert "pipeline_lib.models.vqgan" not in imported_modules(scripts / "train_denoiser.py")


def test_simplex_is_not_part_of_what_gaussian_training_runs(repository: Path) -> None:
    modules = imported_modules(repository / "workflow" / "scripts" / "train_denoiser.py")
    assert "pipeline_lib.noise.simplex" not in modules


def test_networks_that_ship_count_and_what_lies_beside_them_does_not(checkout: Path) -> None:
    before = hash_of(checkout, "train_denoiser")
    edit(checkout, "bundles/anomaly-t1/card.md", "another word\n")
    edit(checkout, "bundles/anomaly-t1/fitted/thresholds.tsv", "\n")
    assert hash_of(checkout, "train_denoiser") == before
    edit(checkout, "bundles/anomaly-t1/model.json", "\n")
    assert hash_of(checkout, "train_denoiser") != before


def test_it_does_not_matter_where_the_checkout_lies(checkout: Path, tmp_path: Path) -> None:
    before = hash_of(checkout, "train_denoiser")
    elsewhere = tmp_path / "fitted" / "LICENSE"
    for name in ("pipeline_lib", "workflow"):
        shutil.copytree(checkout / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert hash_of(elsewhere, "train_denoiser") == before


def test_docstring_does_not_count(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text('def f():\n    """One."""\n    return 1\n')
    second.write_text('def f():\n    """Two."""\n    return 1\n')
    assert code_hash(first) == code_hash(second)


def test_data_file_that_a_module_names_counts(checkout: Path) -> None:
    before = {script: hash_of(checkout, script) for script in ("preprocess", "report_index", "dataset")}
    with open(checkout / "pipeline_lib" / "imaging" / "brain_extraction.safetensors", "ab") as file:
        file.write(b"x")
    assert hash_of(checkout, "preprocess") != before["preprocess"]
    with open(checkout / "pipeline_lib" / "report" / "templates" / "index.html", "a") as file:
        file.write("<!-- -->")
    assert hash_of(checkout, "report_index") != before["report_index"]
    assert hash_of(checkout, "dataset") == before["dataset"]


def test_words_of_a_task_rerun_its_report_and_nothing_that_computes(checkout: Path) -> None:
    words = "\nTASK = TASK.__class__(**{**vars(TASK), 'question': 'Where?'})\n"
    before = {script: hash_of(checkout, script) for script in ("run_stage", "train_denoiser")}
    page = hash_of(checkout, "report_recipe", "pipeline_lib.tasks.anomaly")
    edit(checkout, "tasks/anomaly.py", words)
    assert {script: hash_of(checkout, script) for script in before} == before
    assert hash_of(checkout, "report_recipe", "pipeline_lib.tasks.anomaly") != page
