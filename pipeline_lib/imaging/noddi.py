"""NODDI maps fitted by AMICO (Daducci et al. 2015, doi:10.1016/j.neuroimage.2014.10.026), the extra ``noddi``.

AMICO prints, ends the process on an error, and writes kernels and rotation matrices where it stands and at home.
It therefore runs as a program of its own, ``python -m pipeline_lib.imaging.noddi FOLDER``, in a folder that is
removed afterwards. Diffusivities are AMICO's: 1.7e-3 mm2/s along, 3.0e-3 mm2/s free, as in the paper of NODDI
(Zhang et al. 2012).
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.dwi import Gradients, mean_b0, shells
from pipeline_lib.imaging.nifti import Volume

NAMES = ("NDI", "ODI", "FWF")
"""What AMICO calls ICVF, ODI and ISOVF."""
SPHERICAL_ORDER, DIRECTIONS = 12, 500
"""Of AMICO's response functions: its defaults."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def require_amico() -> None:
    """Raise a UserError that says how to install AMICO, where it is not."""
    if importlib.util.find_spec("amico") is None:
        raise UserError(
            "preprocess.noddi is amico, but AMICO is not installed: pip install -c envs/constraints.txt '.[noddi]', "
            "or set it to given"
        )


def fit_noddi(series: Volume, gradients: Gradients, mask: NDArray[np.bool_], where: str) -> Volume:
    """ICVF, ODI and ISOVF (X, Y, Z, 3) of a multi-shell scan, on one thread; 0 outside the brain and where b0 is 0.

    Args:
        series: (X, Y, Z, V).
        mask: brain (X, Y, Z).

    Raises:
        UserError: fewer than two shells, no b0, or AMICO failed.
    """
    weighted = [b for b in shells(gradients.bvals) if b]
    if len(weighted) < 2:
        found = f"one shell (b{weighted[0]})" if weighted else "no shell"
        raise UserError(f"{where}: {found}, and NODDI needs two; leave the scan out, or set preprocess.noddi to given")
    fitted = mask & (mean_b0(series.data, gradients.bvals, where) > 0)
    maps = np.zeros((*mask.shape, len(NAMES)), np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # NIfTI-2 has room for all voxels along one axis.
        nib.save(nib.Nifti2Image(series.data[fitted][:, None, None, :], np.eye(4)), folder / "DWI.nii")
        np.savetxt(folder / "DWI.scheme", scheme(gradients), header="VERSION: BVECTOR", comments="")
        _run(folder, where)
        maps[fitted] = np.load(folder / "maps.npy")
    return Volume(np.clip(maps, 0, 1), series.affine)


def scheme(gradients: Gradients) -> NDArray[np.float64]:
    """Direction and b (V, 4) of each volume, b being its shell's mean: AMICO makes a shell of every other value."""
    nominal = np.zeros_like(gradients.bvals)
    for b, members in shells(gradients.bvals).items():
        if b:
            nominal[members] = gradients.bvals[members].mean()
    return np.column_stack([gradients.bvecs, nominal])


def _run(folder: Path, where: str) -> None:
    surroundings = {"DIPY_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline_lib.imaging.noddi", str(folder)]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        lines = COLOUR.sub("", ended.stdout).strip().splitlines() or [f"exit code {ended.returncode}"]
        raise UserError(f"{where}: AMICO failed ({lines[-1].strip()[:200]}); look at the scan, or leave it out")


def _fit(folder: Path) -> None:
    """The fit itself, in a process of its own."""
    import amico
    import amico.lut

    amico.set_verbose(1)
    amico.lut.precompute_rotation_matrices(SPHERICAL_ORDER, DIRECTIONS)
    evaluation = amico.Evaluation(str(folder), ".")
    evaluation.set_config("nthreads", 1)
    evaluation.load_data()
    evaluation.set_model("NODDI")
    evaluation.generate_kernels(lmax=SPHERICAL_ORDER, ndirs=DIRECTIONS)
    evaluation.load_kernels()
    evaluation.fit()
    order = [evaluation.model.maps_name.index(name) for name in NAMES]
    np.save(folder / "maps.npy", evaluation.RESULTS["MAPs"][:, 0, 0, order])


if __name__ == "__main__":
    _fit(Path(sys.argv[1]))
