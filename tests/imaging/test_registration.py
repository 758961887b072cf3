"""Registration undoes what is known, and its grid holds the brain."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline_lib.imaging.itk import to_sitk
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.quality import dice
from pipeline_lib.imaging.registration import (
    NODS,
    PITCH,
    TURNS,
    output_grid,
    register,
    register_turned,
    resample,
    template,
)


@pytest.mark.parametrize("angles", [(0.15, -0.1, 0.12), (0.5, -0.2, 0.2), (-0.5, 0.2, 0.1)])
def test_registration_undoes_a_known_turn(angles: tuple[float, float, float]) -> None:
    reference, mask = template()
    turn = sitk.Euler3DTransform((0, -18, 6), *angles, (6, -5, 4))
    moved = resample(reference, reference, turn)
    found = register(moved).transform
    back = resample(Volume(resample(Volume(mask.astype(np.float32), reference.affine), reference, turn).data, reference.affine),
                    reference, found)  # fmt: skip
    assert dice(back.data > 0.5, mask) > 0.96  # the template's box cuts a little of a brain turned so far


def test_deformation_undoes_a_known_one_and_has_a_way_back() -> None:
    reference, mask = template()
    bend = sitk.BSplineTransformInitializer(to_sitk(reference), [3, 3, 3])
    bend.SetParameters(np.random.default_rng(0).uniform(-9, 9, len(bend.GetParameters())).tolist())
    bent = resample(reference, reference, bend)
    found = {kind: register(bent, deformable=kind == "deformable") for kind in ("affine", "deformable")}
    error = {
        kind: np.abs(resample(bent, reference, one.transform).data - reference.data)[mask].mean()
        for kind, one in found.items()
    }
    assert error["deformable"] < 0.75 * error["affine"], error
    field = sitk.TransformToDisplacementField(
        found["deformable"].transform, sitk.sitkVectorFloat64, [24] * 3, [-92.0, -120.0, -80.0], [8.0] * 3
    )
    assert sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field)).min() > 0
    points = reference.affine[:3, :3] @ np.argwhere(mask)[::5000].T + reference.affine[:3, 3:]
    for x, y, z in points.T:
        place = (-float(x), -float(y), float(z))
        one = found["deformable"]
        assert np.linalg.norm(np.subtract(one.inverse.TransformPoint(one.transform.TransformPoint(place)), place)) < 0.5


def test_output_grid_holds_the_template() -> None:
    reference, mask = template()
    for voxel in (2.0, 3.0, 4.5):
        grid = output_grid(voxel)
        inside = resample(Volume(mask.astype(np.float32), reference.affine), grid, None).data > 0.5
        assert inside.sum() * grid.voxel_ml == pytest.approx(mask.sum() * reference.voxel_ml, rel=0.03)
        assert not any(inside.take(end, axis).any() for axis in range(3) for end in (0, -1))


def test_a_turned_header_is_turned_back() -> None:
    reference, _ = template()
    assert len(TURNS) == 23
    assert len(NODS) == len(PITCH)
    assert all(np.allclose(nod[0], (1, 0, 0)) for nod in NODS), "a start leans aside"
    back_to_front = Volume(np.ascontiguousarray(reference.data[:, ::-1]), reference.affine)
    on_the_side = Volume(np.ascontiguousarray(np.rot90(reference.data, 3, (0, 1))), reference.affine)
    for turned, name in ((back_to_front, "180 degrees about z"), (on_the_side, "90 degrees about z")):
        found, registered = register_turned(turned)
        assert found == name
        assert registered.cost < register(turned).cost - 0.05
