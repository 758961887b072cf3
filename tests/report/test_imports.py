import subprocess
import sys

import pytest

SLOW = {"torch", "sklearn", "nilearn", "scipy.stats"}


@pytest.mark.parametrize("module", ["recipe", "exported", "index"])
def test_pages_and_figures_do_not_wait_for_libraries_they_do_not_use(module: str) -> None:
    code = f"import sys, pipeline_lib.report.{module}; print(*sorted({SLOW!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
