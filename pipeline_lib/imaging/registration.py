"""Registration of a brain to the MNI152 template: rigid, affine, then deformable where asked; both directions are kept.

Mattes mutual information (Mattes et al. 2003, doi:10.1109/TMI.2003.809072) with SimpleITK, coarse to
fine. The deformable part is a grid of cubic B-splines (Rueckert et al. 1999, doi:10.1109/42.796284).
The template is the symmetric MNI152 2009a brain that nilearn ships (Fonov et al. 2011).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from numpy.typing import NDArray

from pipeline_lib.imaging.itk import to_sitk
from pipeline_lib.imaging.nifti import Volume

TEMPLATE_MM = 2
SAMPLES = 0.1
SEED = 1
MARGIN_MM = 8.0
PITCH, SIDEWAYS = (-36, -24, -12, 0, 12, 24, 36), (-15, 0, 15)
"""Degrees by which a head may be nodding, or lean and turn aside, where the registration starts."""
NODDING = [
    np.array(sitk.Euler3DTransform((0, 0, 0), *np.deg2rad(angles).tolist()).GetMatrix()).reshape(3, 3)
    for angles in itertools.product(PITCH, SIDEWAYS, SIDEWAYS)
]
NODS = NODDING[len(SIDEWAYS) ** 2 // 2 :: len(SIDEWAYS) ** 2]
"""Those of them that neither lean nor turn aside."""
TURNS = [
    turn
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
    if np.linalg.det(turn := np.eye(3)[list(order)] * signs) > 0 and np.trace(turn) < 3
]
"""The 23 rotations of a cube onto itself, but for none."""
TRIED = 2
"""Turns that are tried in full."""
SPLINE_MM = 25.0
"""Distance of the deformable part's control points: the shape of lobes and ventricles, not of gyri."""
UNFOLDED = 1 / 2.48
"""Share of their distance up to which control points may move without folding space (Choi and Lee 2000,
doi:10.1006/gmod.2000.0531)."""
FIELD_MM = 4.0
"""Voxels of the displacement fields that the deformable part is kept as."""


@dataclass(frozen=True)
class Registered:
    """Transforms of points, LPS mm, as ITK has them.

    ``transform`` maps points of the template to points of the scan and so brings images of the scan
    to the template; ``inverse`` is the way back. ``start`` only aligns the centres of mass.
    """

    transform: sitk.Transform
    inverse: sitk.Transform
    start: sitk.Transform
    cost: float  # Mattes mutual information, negative; lower is better


@functools.lru_cache(maxsize=1)
def template() -> tuple[Volume, NDArray[np.bool_]]:
    """The MNI152 brain in [0, 1] at 2 mm, RAS+, and its mask."""
    image, mask = load_mni152_template(TEMPLATE_MM), load_mni152_brain_mask(TEMPLATE_MM)
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(data / data.max(), np.asarray(image.affine)), np.asarray(mask.dataobj) > 0


@functools.lru_cache(maxsize=4)
def output_grid(voxel_size: float) -> Volume:
    """The grid that everyone is brought to: the template's brain with 8 mm around it, zeros."""
    reference, mask = template()
    where = np.argwhere(mask)
    corners = np.stack([where.min(0), where.max(0)]) @ reference.affine[:3, :3].T + reference.affine[:3, 3]
    low, high = corners.min(0) - MARGIN_MM, corners.max(0) + MARGIN_MM
    low = np.floor(low / voxel_size) * voxel_size
    shape = np.ceil((high - low) / voxel_size).astype(int) + 1
    affine = np.diag([voxel_size] * 3 + [1.0])
    affine[:3, 3] = low
    return Volume(np.zeros(tuple(shape), np.float32), affine)


def register(brain: Volume, *, deformable: bool = False) -> Registered:
    """Register a stripped brain, zero outside, to the template."""
    fixed, moving, start = _centred(brain)
    found, cost = _affine(fixed, moving, _turned(fixed, moving, start, NODDING)[0])
    if not deformable:
        return Registered(found, found.GetInverse(), start, cost)
    forward, backward, cost = _deformation(fixed, sitk.Resample(moving, fixed, found))
    # A composite applies the transform that was added last first.
    transform = sitk.CompositeTransform([found, forward])
    return Registered(transform, sitk.CompositeTransform([backward, found.GetInverse()]), start, cost)


def register_turned(brain: Volume) -> tuple[str, Registered]:
    """Register a brain as if its header were turned: the turn into another of the 24 positions of a cube that fits best.

    A brain is much like its mirror image, so that a turn stands for that turn and a mirroring of left and right, too:
    half a turn about z is what a brain looks like whose front and back are exchanged.
    """
    fixed, moving, start = _centred(brain)
    starts = _turned(fixed, moving, start, [turn @ nod for turn in TURNS for nod in NODS])
    turns = {_name_of(start): start for start in reversed(starts)}  # of those of one name, the best
    best = sorted(turns, key=lambda name: starts.index(turns[name]))[:TRIED]
    found = {name: _affine_after(turns[name], fixed, moving) for name in best}
    return min(found.items(), key=lambda pair: pair[1].cost)


def _affine_after(turn: sitk.Transform, fixed: sitk.Image, moving: sitk.Image) -> Registered:
    """Affine registration of what is turned already: a versor cannot be moved away from half a turn."""
    turned = sitk.Resample(moving, fixed, turn)
    rigid = sitk.VersorRigid3DTransform()
    rigid.SetCenter(sitk.VersorRigid3DTransform(turn).GetCenter())
    found, cost = _affine(fixed, turned, rigid)
    # A composite applies the transform that was added last first.
    forward, back = [turn, found], [found.GetInverse(), turn.GetInverse()]
    return Registered(sitk.CompositeTransform(forward), sitk.CompositeTransform(back), turn, cost)


def _centred(brain: Volume) -> tuple[sitk.Image, sitk.Image, sitk.Transform]:
    """The template, the brain, and the transform that lays the centre of mass of the one on the other's."""
    fixed, moving = to_sitk(template()[0]), to_sitk(brain)
    centred = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.VersorRigid3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    return fixed, moving, centred


def _affine(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> tuple[sitk.Transform, float]:
    """Rigid, then affine registration; the cost."""
    rigid = sitk.VersorRigid3DTransform(_optimised(fixed, moving, start, iterations=40)[0])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    affine.SetCenter(rigid.GetCenter())
    return _optimised(fixed, moving, affine, iterations=60)


def _turned(
    fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform, rotations: Sequence[NDArray[np.float64]]
) -> list[sitk.Transform]:
    """``start`` turned about its centre by each rotation, the one that suits the images at 8 mm best first.

    Heads lie tilted, and descent is local.
    """
    coarse = [
        sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, 4.0), _factors(image, 8.0)) for image in (fixed, moving)
    ]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    costs = []
    for number, rotation in enumerate(rotations):
        turned = sitk.VersorRigid3DTransform(start)
        turned.SetMatrix(rotation.ravel().tolist())
        method.SetInitialTransform(turned)
        costs.append((method.MetricEvaluate(*coarse), number, turned))
    return [turned for _, _, turned in sorted(costs, key=lambda found: found[:2])]


def _name_of(turned: sitk.Transform) -> str:
    """The turn of the cube that a rotation is nearest to, in words."""
    rotation = np.array(sitk.VersorRigid3DTransform(turned).GetMatrix()).reshape(3, 3)
    nearest = max(TURNS, key=lambda turn: float(np.trace(rotation @ turn.T)))
    degrees = round(float(np.rad2deg(np.arccos(np.clip((np.trace(nearest) - 1) / 2, -1, 1)))))
    fixed = [axis for axis, kept in zip("xyz", np.diag(nearest) == 1, strict=True) if kept]
    if fixed:
        return f"{degrees} degrees about {fixed[0]}"
    return f"{degrees} degrees about a diagonal, {'two' if degrees == 180 else 'three'} axes exchanged"


def _factors(image: sitk.Image, millimetres: float) -> list[int]:
    """How often an image can be shrunk along each axis to voxels of at most so many mm."""
    return [max(1, int(millimetres / size)) for size in image.GetSpacing()]


def _deformation(fixed: sitk.Image, moving: sitk.Image) -> tuple[sitk.Transform, sitk.Transform, float]:
    """Displacement fields from ``fixed`` to ``moving``, which are aligned but for their shape, and back; the cost."""
    extent = np.array(fixed.GetSize()) * fixed.GetSpacing()
    mesh = [int(n) for n in np.maximum(1, np.round(extent / SPLINE_MM))]
    furthest = UNFOLDED * float((extent / mesh).min())
    spline, cost = _optimised(
        fixed, moving, sitk.BSplineTransformInitializer(fixed, mesh), iterations=20, furthest=furthest
    )
    size = [round(n / FIELD_MM) for n in extent]
    field = sitk.TransformToDisplacementField(
        spline, sitk.sitkVectorFloat64, size, fixed.GetOrigin(), [FIELD_MM] * 3, fixed.GetDirection()
    )
    back = sitk.InvertDisplacementField(
        field, maximumNumberOfIterations=50, maxErrorToleranceThreshold=0.05, meanErrorToleranceThreshold=0.005
    )
    return sitk.DisplacementFieldTransform(field), sitk.DisplacementFieldTransform(back), cost


def _optimised(
    fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform, *, iterations: int, furthest: float = 0.0
) -> tuple[sitk.Transform, float]:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLES, SEED)
    # Gradients where they are needed, not filtered over the whole image: half the time, and nothing lost.
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetInterpolator(sitk.sitkLinear)
    if isinstance(start, sitk.BSplineTransform):
        method.SetOptimizerAsLBFGSB(
            numberOfIterations=iterations,
            gradientConvergenceTolerance=1e-5,
            lowerBound=-furthest,
            upperBound=furthest,
        )
    else:
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-3,
            numberOfIterations=iterations,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel((4, 2))
    method.SetSmoothingSigmasPerLevel((4.0, 2.0))
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    while found.GetName() == "CompositeTransform":
        found = sitk.CompositeTransform(found).GetNthTransform(0)
    if found.GetTransformEnum() != start.Downcast().GetTransformEnum():
        raise TypeError(f"registration gave a {found.GetName()}")
    return found.Downcast(), float(method.GetMetricValue())


def resample(volume: Volume, grid: Volume, transform: sitk.Transform | None, *, order: int = 1) -> Volume:
    """``volume`` on ``grid`` through ``transform`` (grid to scan; None is the identity); order 3 is a B-spline."""
    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order]
    moved = sitk.Resample(to_sitk(volume), to_sitk(grid), transform or sitk.Transform(), interpolator, 0.0)
    return Volume(np.ascontiguousarray(sitk.GetArrayFromImage(moved).T), grid.affine)


def native_map(volume: Volume, native: Volume, inverse: sitk.Transform) -> Volume:
    """A map in template space taken back to the scan's own grid by the scan's ``to-native`` transform."""
    return resample(volume, native, inverse)
