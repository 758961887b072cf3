"""One process at a time trains in a folder; a killed one leaves no lock."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import train

from pipeline_lib.errors import UserError
from pipeline_lib.training.owner import LOCK, owner

HOLDING = """
import sys, time
from pathlib import Path
from pipeline_lib.training.owner import owner
from torch.utils.data import DataLoader
with owner(Path(sys.argv[1])):
    workers = iter(DataLoader(range(100), num_workers=1))  # processes that were forked while it was held
    next(workers)
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_process_is_kept_out_and_told_by_whom_until_the_first_is_killed(
    tmp_path: Path, repository: Path
) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "state")]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UserError) as refused, owner(tmp_path / "state"):
                pass
            line = str(refused.value)
            assert re.search(rf"process {holder.pid} on \S+ \(since 20\d\d-", line), line
            assert "\n" not in line
            with pytest.raises(UserError, match="trains here"):
                train("vae", ([], []), tmp_path / "out", tmp_path / "state")
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    with owner(tmp_path / "state"):
        pass


def test_folder_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), owner(tmp_path):
        raise ZeroDivisionError
    with owner(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == "", "nobody is named who no longer trains"


def test_processes_that_were_started_by_the_holder_do_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with owner(tmp_path / "state"):
        assert not (tmp_path / "state").exists()
