"""The cluster profile on a real SLURM of two nodes; `make test-slurm` starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from workspace import Workspace, checkout, tiny_cohort

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("SMALL_SLURM" not in os.environ, reason="no SLURM of its own: run make test-slurm"),
]

PROFILE = (
    # The machine has fewer cores than the profile asks of a node.
    "--set-threads", "ingest=1", "preprocess=2", "train_vae=1", "train_vqgan=1", "train_regression=1", "train_denoiser=1",
    "--profile", "slurm", "--jobs", "4", "--latency-wait", "20",
    "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2",
)  # fmt: skip
GPU_RULES = {
    "train_vae", "train_vqgan", "train_regression", "train_denoiser", "latents",
    "anomaly_standards", "infer_anomaly", "infer_translation", "sample_generation", "sample_synthesis",
}  # fmt: skip
MODEL = "results/anomaly/diffusion/provenance.json"
LONG = ("training: &training {steps: 4, batch_size: 2, warmup: 0, validate_every: 2, checkpoint_every: 2,",
        "training: &training {steps: 1500, batch_size: 2, warmup: 0, validate_every: 500, checkpoint_every: 50,")  # fmt: skip


@pytest.fixture(scope="module")
def workspace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = checkout(repository, tmp_path_factory.mktemp("cluster"))
    tiny_cohort(made)
    return made


FIELDS = {"id": "%i", "state": "%T", "comment": "%k", "partition": "%P", "gres": "%b", "memory": "%m", "limit": "%l"}


def jobs() -> dict[str, dict[str, str]]:
    """Every job SLURM remembers, by its id, in the order of submission."""
    command = ["squeue", "--states=all", "--noheader", f"--format={'|'.join(FIELDS.values())}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    found = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in shown.stdout.splitlines()]
    return {job["id"]: job for job in sorted(found, key=lambda job: int(job["id"]))}


def rule_of(job: dict[str, str]) -> str:
    """The rule, which the executor writes into the job's comment."""
    return re.sub(r"^rule_|_wildcards_.*$", "", job["comment"])


def of_rule(rule: str, since: set[str] = frozenset()) -> list[dict[str, str]]:
    return [job for number, job in jobs().items() if rule_of(job) == rule and number not in since]


def wait_for(condition: Callable[[], object], seconds: int = 180) -> object:
    """What ``condition`` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not seen within {seconds} s")


def reached(workspace: Workspace) -> int:
    """The step of the newest checkpoint."""
    steps = [int(path.stem.removeprefix("step-")) for path in workspace.folder.glob("state/*/step-*.json")]
    return max(steps, default=0)


def test_workflow_interrupted_and_started_again_makes_everything(workspace: Workspace) -> None:
    first = workspace.start(*PROFILE, "all")
    wait_for(lambda: any(job["state"] == "COMPLETED" for job in of_rule("ingest")))
    wait_for(lambda: any(job["state"] == "RUNNING" for job in of_rule("preprocess")))
    first.send_signal(signal.SIGINT)
    assert first.wait(120) != 0
    wait_for(lambda: not any(job["state"] in ("RUNNING", "PENDING") for job in jobs().values()))
    done = workspace.snakemake(*PROFILE, "all")
    assert "Traceback" not in done.stdout
    assert (workspace.folder / "results/report/index.html").is_file()
    assert "Nothing to be done" in workspace.snakemake(*PROFILE, "-n", "all").stdout


def test_gpu_rules_ask_for_a_gpu_and_the_others_do_not(workspace: Workspace) -> None:
    asked = {(rule_of(job), "gres:gpu" in job["gres"], job["partition"]) for job in jobs().values()}
    assert {rule for rule, gpu, _ in asked if gpu} == GPU_RULES
    assert all((partition == "gpu") == gpu for _, gpu, partition in asked)


def test_scans_travel_in_chunks_not_one_a_job(workspace: Workspace) -> None:
    chunks = len(list((workspace.folder / "results/preprocess").iterdir()))
    scans = sum(
        len(path.read_text().splitlines()) - 1 for path in workspace.folder.glob("results/preprocess/*/status.tsv")
    )
    completed = [job for job in of_rule("preprocess") if job["state"] == "COMPLETED"]
    assert chunks <= len(completed) <= chunks + 2 < scans, "one job a chunk, but for what Ctrl-C cut short"


def test_reason_and_log_of_a_failure_are_named(workspace: Workspace) -> None:
    with workspace.edited("config/tiny.yaml", ("max_failed_fraction: 0.5", "max_failed_fraction: 0.0")):
        done = workspace.snakemake(*PROFILE, "--retries", "0", "all", check=False)
    assert done.returncode != 0
    named = {Path(found) for found in re.findall(r"results/logs/\S+?\.log", done.stdout)}
    texts = [(workspace.folder / path).read_text() for path in named if (workspace.folder / path).is_file()]
    assert any("more than cohort.max_failed_fraction 0 allows" in text for text in texts)
    assert "Traceback" not in done.stdout


def test_job_over_its_memory_is_tried_again_with_more(workspace: Workspace) -> None:
    before = set(jobs())
    memory = "ingest:mem_mb=60 * attempt ** 5"
    workspace.snakemake(
        "results/ingest/train-anat-0001/provenance.json", *PROFILE, "--retries", "2", "--forcerun", "ingest",
        "--set-resources", memory, "ingest:slurm_partition=cpu",
    )  # fmt: skip
    states = [(job["memory"], job["state"]) for job in of_rule("ingest", before)]
    assert [memory for memory, _ in states] == ["60M", "1920M"]
    assert states[0][1] != "COMPLETED"
    assert states[1][1] == "COMPLETED"


def test_training_on_two_nodes_equals_training_on_one(workspace: Workspace) -> None:
    """By the numbers in the configuration alone; the rule itself calls srun."""
    weights = []
    for nodes in (1, 2):
        several = ("batch_size: 2,", f"batch_size: 2, nodes: {nodes},")
        resources = ("--set-resources", "train_denoiser:nodes=2", "train_denoiser:tasks=2", "train_denoiser:mpi=srun")
        workspace.forget_state()
        shutil.rmtree(workspace.folder / "results/anomaly/diffusion", ignore_errors=True)
        with workspace.edited("config/tiny.yaml", several):
            workspace.snakemake(MODEL, *PROFILE, *(resources if nodes == 2 else ()))
        weights.append(load_file(workspace.folder / "results/anomaly/diffusion/model.safetensors"))
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-4) for name in weights[0])
    last = list(jobs())[-1]
    shown = subprocess.run(["scontrol", "show", "job", last], capture_output=True, text=True, check=True).stdout
    assert "NumNodes=2" in shown


def test_training_out_of_time_goes_on_with_more(workspace: Workspace) -> None:
    with workspace.edited("config/tiny.yaml", (LONG[0], LONG[1].replace("steps: 1500", "steps: 1000000"))):
        known = set(jobs())
        running = workspace.start(
            MODEL, *PROFILE, "--retries", "1", "--set-resources", "train_denoiser:runtime=2 * attempt",
            "train_denoiser:slurm_extra='--signal=TERM@30'",
        )  # fmt: skip  # SLURM may signal a minute early: within the first half minute it would find no step done
        wait_for(lambda: len(of_rule("train_denoiser", known)) == 2, 300)
        log = workspace.folder / "results/logs/train_denoiser/anomaly.log"
        wait_for(lambda: log.is_file() and "resumed at step" in log.read_text())
        first, second = of_rule("train_denoiser", known)
        assert (first["limit"], second["limit"]) == ("2:00", "4:00")
        assert first["state"] in ("FAILED", "TIMEOUT", "CANCELLED")
        running.send_signal(signal.SIGINT)
        running.wait(120)
    wait_for(lambda: not any(job["state"] in ("RUNNING", "PENDING") for job in jobs().values()))


def test_training_survives_requeue_and_scancel(workspace: Workspace) -> None:
    """Pre-empted, cancelled: each time it goes on, and ends bit for bit where it would have."""
    workspace.forget_state()
    with workspace.edited("config/tiny.yaml", LONG):
        known, model = set(jobs()), workspace.folder / "results/anomaly/diffusion/model.safetensors"
        running = workspace.start(*PROFILE, "--retries", "0", MODEL)
        job = wait_for(lambda: [job for job in of_rule("train_denoiser", known) if job["state"] == "RUNNING"])[0]
        wait_for(lambda: reached(workspace) >= 50)
        subprocess.run(["scontrol", "requeue", job["id"]], check=True)
        log = workspace.folder / "results/logs/train_denoiser/anomaly.log"
        wait_for(lambda: log.is_file() and "resumed at step" in log.read_text(), 300)
        resumed = reached(workspace)
        wait_for(lambda: reached(workspace) > resumed)
        subprocess.run(["scancel", job["id"]], check=True)
        assert running.wait(300) != 0, "cancelled, and no retry was allowed"

        done = workspace.snakemake(MODEL, *PROFILE)
        assert "resumed at step" in log.read_text()
        survived = load_file(model)

        workspace.forget_state()
        workspace.snakemake(MODEL, "--cores", "1", "--force", "--set-threads", "train_denoiser=1")
        undisturbed = load_file(model)
    assert all(survived[name].equal(undisturbed[name]) for name in undisturbed), done.stdout[-2000:]
