"""From an ingested scan to a brain in a common space with comparable intensities, and whether that went well."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.config.schema import PreprocessOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table, sha256_file, sha256_text, write_json
from pipeline_lib.imaging import quality
from pipeline_lib.imaging.bias import correct_bias
from pipeline_lib.imaging.brain import Brain, extract_brain, foreground, largest_component
from pipeline_lib.imaging.chunk import Done, Item, run_chunk
from pipeline_lib.imaging.content import TWO_SIGNS, below_background, content_fault, tissue_contrast
from pipeline_lib.imaging.dwi import (
    Gradients,
    directions_fault,
    mean_b0,
    series_fault,
    shells,
    signal_channels,
    write_gradients,
)
from pipeline_lib.imaging.field import Cut, cropped, cuts, empty_inside, empty_slices, outside_field
from pipeline_lib.imaging.ingest import NODDI_MAPS
from pipeline_lib.imaging.intensity import Normalisation, fit_normalisation, normalise
from pipeline_lib.imaging.nifti import Volume, read_volume, write_volume
from pipeline_lib.imaging.noddi import fit_noddi, require_amico
from pipeline_lib.imaging.registration import Registered, output_grid, register, register_turned, resample, template
from pipeline_lib.imaging.status import SCAN_COLUMNS, pair_key, write_status

LOWEST = 0.5
"""Percentile of a scan's intensities, its constant background left out, that is taken for its least."""
MOST_SHOWN = 4
"""Channels of a diffusion scan that its picture shows."""
CLEARLY_BETTER = 0.05
"""By how much the registration cost falls where a header is turned and a brain is turned back."""
MNI152 = 4
"""NIfTI's code for the space of the MNI152 template."""


FROM_INGEST = ("voxels_sha256", "not_finite")
"""Notes of ingest that a row keeps."""


@dataclass(frozen=True)
class _Given:
    row: Mapping[str, str]
    folder: Path  # of the ingested chunk
    options: PreprocessOptions

    def path(self, name: str) -> Path | None:
        outputs = json.loads(self.row["outputs"])
        return self.folder / outputs[name] if name in outputs else None


def preprocess_chunk(
    ingested: Path, options: PreprocessOptions, out: Path, *, workers: int, cache: Path | None = None
) -> None:
    """Preprocess every scan of an ingested chunk; scans that failed there keep their row.

    Args:
        ingested: folder of the ingest stage.
        out: folder to write: ``status.tsv`` with the quality figures, ``scans/``, ``logs/``.
        workers: processes.
        cache: folder that keeps finished scans between runs.

    Raises:
        UserError: NODDI maps are to be fitted and AMICO is not installed.
    """
    rows = read_table(ingested / "status.tsv")
    mapped = {pair_key(row) for row in rows if row["modality"] == "noddi" and row["ok"] == "true"}
    used = [_used(options, row, mapped) for row in rows]
    if any(each.noddi == "amico" for each in used):
        require_amico()
    items = [_item(row, ingested, each) for row, each in zip(rows, used, strict=True) if row["ok"] == "true"]
    run_chunk("preprocess", items, _preprocess, out, workers=workers, cache=cache)
    done = {row["scan"]: row for row in read_table(out / "status.tsv")}
    write_status(out / "status.tsv", [done.get(row["scan"], row) for row in rows])


def _used(options: PreprocessOptions, row: Mapping[str, str], mapped: Collection[str]) -> PreprocessOptions:
    """The options that bear on this scan, all others at their defaults: changing those leaves its finished work alone.

    Maps are not fitted where the sheet gives them (``mapped``).
    """
    modality = row["modality"]
    if modality == "dwi":
        names = {"quality", "dwi_channels"} | ({"noddi"} if pair_key(row) not in mapped else set())
    elif modality == "noddi":
        names = {"quality"}
    else:
        names = {*PreprocessOptions.model_fields} - {"dwi_channels", "noddi"}
    return PreprocessOptions(**{name: getattr(options, name) for name in names})


def _item(row: Mapping[str, str], ingested: Path, options: PreprocessOptions) -> Item:
    """The key is of what the outputs are made of: a corrected age or group leaves the finished scan as it is."""
    start = {name: row.get(name, "") for name in SCAN_COLUMNS} | {
        name: row[name] for name in FROM_INGEST if row.get(name)
    }
    written = [sha256_file(ingested / path) for path in json.loads(row["outputs"]).values()]
    made_of = [row["scan"], row["source"], row["sha256"], written, options.model_dump()]
    key = sha256_text(json.dumps(made_of, sort_keys=True))[:32]
    return Item(start, key, _Given(row, ingested, options))


def _preprocess(given: object, out: Path) -> Done:
    assert isinstance(given, _Given)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    modality = given.row["modality"]
    work = {"dwi": _diffusion, "noddi": _noddi}.get(modality, _anatomy)
    source = given.row["source"]
    try:
        done = work(given, out)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return replace(done, fault=f"{source}: {done.fault}" if done.fault else "")


def _anatomy(given: _Given, out: Path) -> Done:
    options, scan = given.options, given.row["scan"]
    scanned = _required(given, "image")
    volume, raised = _from_zero(scanned)
    mask = _mask(given, "mask")
    lesion = _mask(given, "lesion")
    person, modality = scan.rsplit("_", 1)

    brain = extract_brain(volume, options.brain_extraction, mask)
    figures = quality.measure_native(volume, brain.mask, brain.components)
    figures["empty_slices"], slices = empty_slices(scanned, brain.mask)
    figures["below_background"] = below_background(scanned)
    corrected = correct_bias(volume, brain.mask) if options.bias_field else scanned
    stripped = Volume(normalise(corrected.data, brain.mask, "percentile"), volume.affine)

    ends = cuts(scanned, brain.mask)
    field = cropped(stripped, ends)
    deformable = options.registration == "deformable"
    registered = register(field, deformable=deformable) if options.space == "MNI152" else None
    grid = output_grid(options.voxel_size) if registered else _native_grid(volume, options.voxel_size)
    moved = _Moved(grid, registered)
    inside = moved.mask(brain.mask, volume.affine)
    if not inside.any():
        raise UserError("registration moved the brain out of the template's space; look at the scan's orientation")
    resampled = moved.volume(corrected).data
    normalisation = fit_normalisation(resampled[inside], options.intensity, modality)
    image = normalisation.apply(resampled, inside)
    shown = Volume(normalise(resampled, inside, "percentile"), grid.affine)
    figures["brain_median"] = float(np.median(shown.data[inside]))
    if registered:
        outline = moved.template_mask()
        figures |= {"template_overlap": quality.dice(inside, outline), "registration_cost": registered.cost}
        figures |= _tissues(corrected, brain.mask, registered)
        figures["outside_field"] = outside_field(field, registered.transform)
        figures["empty_inside"] = empty_inside(scanned, brain.mask, field, registered.transform)
    else:
        outline = inside

    stem = f"{person}_space-{options.space}"
    outputs = {
        "image": f"{stem}_desc-preproc_{modality}.nii.gz",
        "mask": f"{stem}_desc-{modality}Brain_mask.nii.gz",
        "native_mask": f"{person}_desc-{modality}Brain_mask.nii.gz",
        "figure": f"figures/{scan}.png",
    }
    write_volume(out / outputs["native_mask"], Volume(brain.mask.astype(np.float32), volume.affine), np.uint8)
    write_volume(out / outputs["image"], Volume(image, grid.affine), space=_code(options))
    write_volume(out / outputs["mask"], Volume(inside.astype(np.float32), grid.affine), np.uint8, space=_code(options))
    if lesion is not None:
        outputs["lesion"] = f"{stem}_desc-{modality}Lesion_mask.nii.gz"
        where = Volume(_moved_lesion(moved, lesion, volume, options.voxel_size).astype(np.float32), grid.affine)
        write_volume(out / outputs["lesion"], where, np.uint8, space=_code(options))
    if registered:
        outputs |= _write_transforms(registered, person, modality, "h5" if deformable else "tfm", out)
    _describe(out / outputs["image"], given, _steps(brain, options, raised, normalisation))
    before = resample(stripped, grid, registered.start) if registered else None
    quality.draw_anatomy(out / outputs["figure"], volume, brain.mask, before, shown, outline, inside)
    fault = _fault(figures, modality, options, brain, lambda: _turned(field, corrected, brain, registered, modality))
    fault = _explained(fault, ends, slices, given.row, brain)
    methods = {"brain_method": brain.method, "intensity": options.intensity}
    return Done(outputs, _text(figures) | methods | _constants(normalisation, image[inside]), fault)


def _tissues(corrected: Volume, mask: NDArray[np.bool_], registered: Registered) -> dict[str, float]:
    """The contrast of the scan's tissues, found by the template's."""
    on_template = _Moved(template()[0], registered)
    return tissue_contrast(on_template.volume(corrected).data, on_template.mask(mask, corrected.affine))


def _fault(
    figures: Mapping[str, float], modality: str, options: PreprocessOptions, brain: Brain, turned: Callable[[], str]
) -> str:
    """Empty, or the fault that explains the most: a brain of which much is missing looks odd in all else, too.

    Tissues are found by registration, so what they look like is judged where that went well. ``turned`` takes as
    long as a registration does and is asked last.
    """
    limits = options.quality
    fault = quality.verdict(figures, limits, extracted=brain.method != "given")
    if quality.incomplete(figures, limits):
        return fault
    unlike = content_fault(figures, modality) if limits.contrast else ""
    if unlike.startswith(TWO_SIGNS):
        return unlike
    return (turned() if fault or unlike else "") or fault or unlike


def _turned(field: Volume, corrected: Volume, brain: Brain, registered: Registered | None, modality: str) -> str:
    """Empty, or by what a header is turned: where a brain fits the template well, and its tissues do, once it is turned."""
    if registered is None:
        return ""
    name, other = register_turned(field)
    if other.cost > registered.cost - CLEARLY_BETTER or content_fault(_tissues(corrected, brain.mask, other), modality):
        return ""
    return (
        f"the header seems to be turned by {name}, or mirrored likewise: registration cost {other.cost:.2f} with that turn, "
        f"{registered.cost:.2f} as it is; convert the scan again from DICOM, or correct its header"
    )


def _explained(fault: str, ends: Sequence[Cut], slices: str, row: Mapping[str, str], brain: Brain) -> str:
    """A fault with what is known of its cause, before what to do."""
    if not fault:
        return ""
    causes = []
    if quality.BEYOND in fault:
        causes.append(f"the scan ends at the brain's {' and '.join(cut.name for cut in ends)}" if ends else "")
    if quality.EMPTY_SLICES in fault:
        causes.append(slices)
    if row.get("not_finite"):
        causes.append(f"{float(row['not_finite']):.0%} of its voxels were NaN or infinite and became 0")
    if brain.method == "given":
        causes.append("its brain mask is the sheet's, which may not belong to it")
    known = "; ".join(cause for cause in causes if cause)
    what, _, advice = fault.partition("; ")
    return f"{what}{f' ({known})' if known else ''}; {advice}"


def _constants(used: Normalisation, inside: NDArray[np.float32]) -> dict[str, str]:
    """How intensities were normalised: (x - centre) / scale, of which low to high is what a network sees."""
    constants = {name: getattr(used, name) for name in ("centre", "scale", "low", "high")}
    constants["clipped"] = used.clipped(inside)
    return {f"intensity_{name}": f"{value:.7g}" for name, value in constants.items()}


def _from_zero(volume: Volume) -> tuple[Volume, float]:
    """Without negative intensities, which a magnitude does not have, and by how much all were raised for that.

    A bias field multiplies what is above 0. Few voxels below 0 (undershoot of an interpolation) and a constant
    background there (padding) become 0; intensities that are negative as a rule are raised.
    """
    raised = max(0.0, -float(np.percentile(volume.data[foreground(volume)], LOWEST)))
    return Volume(np.maximum(volume.data + np.float32(raised), 0), volume.affine), raised


def _write_transforms(registered: Registered, person: str, modality: str, suffix: str, out: Path) -> dict[str, str]:
    """Both ways, named by what they do to an image, as in fMRIPrep."""
    outputs = {
        "to_MNI152": f"{person}_from-{modality}_to-MNI152_mode-image_xfm.{suffix}",
        "to_scan": f"{person}_from-MNI152_to-{modality}_mode-image_xfm.{suffix}",
    }
    sitk.WriteTransform(registered.transform, str(out / outputs["to_MNI152"]))
    sitk.WriteTransform(registered.inverse, str(out / outputs["to_scan"]))
    return outputs


@dataclass(frozen=True)
class _Moved:
    """Takes volumes of a scan to the output grid."""

    grid: Volume
    registered: Registered | None

    def volume(self, volume: Volume) -> Volume:
        return resample(volume, self.grid, self.registered.transform if self.registered else None)

    def mask(self, mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.volume(Volume(mask.astype(np.float32), affine)).data >= 0.5

    def template_mask(self) -> NDArray[np.bool_]:
        reference, mask = template()
        return resample(Volume(mask.astype(np.float32), reference.affine), self.grid, None).data >= 0.5


def _moved_lesion(moved: _Moved, lesion: NDArray[np.bool_], volume: Volume, voxel_size: float) -> NDArray[np.bool_]:
    there = moved.mask(lesion, volume.affine)
    if lesion.any() and not there.any():
        raise UserError(
            f"its lesion ({lesion.sum() * volume.voxel_ml * 1000:.3g} mm3) has no voxel of {voxel_size:g} mm left; "
            "choose a smaller preprocess.voxel_size, or leave the scan out"
        )
    return there


def _native_grid(volume: Volume, voxel_size: float) -> Volume:
    """The scan's own box with isotropic voxels."""
    zooms = np.array(volume.zooms)
    shape = np.maximum(1, np.round(np.array(volume.data.shape) * zooms / voxel_size)).astype(int)
    scale = np.diag([*(voxel_size / zooms), 1.0])
    scale[:3, 3] = (voxel_size / zooms - 1) / 2
    return Volume(np.zeros(tuple(shape), np.float32), volume.affine @ scale)


def _diffusion(given: _Given, out: Path) -> Done:
    """The signal over b0 and, where wanted, NODDI maps, in the scan's own space; its gradient table beside them."""
    options, scan = given.options, given.row["scan"]
    volume, gradients = _required(given, "image"), _gradients(given)
    b0 = mean_b0(volume.data, gradients.bvals, scan)
    brain = _diffusion_mask(given, b0)
    _require_brain(brain)
    figures = quality.measure_native(Volume(b0, volume.affine), brain.mask, brain.components)
    channels, names = signal_channels(volume.data, gradients.bvals, brain.mask, scan, options.dwi_channels)
    stem = scan.rsplit("_", 1)[0]
    image = Volume(channels, volume.affine)
    outputs = _maps(image, brain.mask, f"{stem}_desc-{options.dwi_channels}_dwi", scan, out)
    outputs |= write_gradients(out / scan, gradients) | {"b0": f"{stem}_dwiref.nii.gz"}
    write_volume(out / outputs["b0"], Volume(b0 * brain.mask, volume.affine))
    _describe(out / outputs["image"], given, [f"brain mask: {brain.method}"], names)
    fault = (
        quality.verdict(figures, options.quality)
        or series_fault(volume.data, gradients.bvals, brain.mask)
        or directions_fault(volume.data, gradients, brain.mask)
    )
    shown, titles = channels[..., :MOST_SHOWN], names[:MOST_SHOWN]
    if options.noddi == "amico" and not fault:
        outputs["noddi"] = f"{stem}_desc-amico_noddi.nii.gz"
        maps = fit_noddi(volume, gradients, brain.mask, scan)
        write_volume(out / outputs["noddi"], maps)
        steps = [f"brain mask: {brain.method}", f"NODDI fitted with AMICO {version('dmri-amico')}"]
        _describe(out / outputs["noddi"], given, steps, NODDI_MAPS)
        shown, titles = np.concatenate([shown, maps.data], axis=-1), [*titles, *NODDI_MAPS]
    quality.draw_maps(out / outputs["figure"], Volume(shown, volume.affine), brain.mask, titles)
    found = " ".join(f"b{b}" for b in shells(gradients.bvals))
    return Done(outputs, _text(figures) | {"shells": found}, fault)


def _gradients(given: _Given) -> Gradients:
    bval, bvec = given.path("bval"), given.path("bvec")
    if bval is None or bvec is None:
        raise UserError("its gradients are missing from the ingested chunk; run ingest again")
    return Gradients(np.loadtxt(bval, ndmin=1), np.loadtxt(bvec, ndmin=2).T)


def _diffusion_mask(given: _Given, b0: NDArray[np.float32]) -> Brain:
    """The mask of the sheet, or the foreground of the mean b0 (Otsu's threshold, largest component)."""
    mask = _mask(given, "mask")
    if mask is not None:
        return Brain(mask, int(ndimage.label(mask)[1]), "given")
    smooth = ndimage.gaussian_filter(b0, 1)
    found, components = largest_component(smooth > quality.threshold_otsu(smooth))
    return Brain(ndimage.binary_opening(found), components, "Otsu threshold of b0")


def _noddi(given: _Given, out: Path) -> Done:
    """NODDI maps as they are, within their mask, in the scan's own space."""
    scan = given.row["scan"]
    volume = _required(given, "image")
    mask = _mask(given, "mask")
    method = "given"
    if mask is None:
        mask, method = largest_component(volume.data.max(-1) > 0)[0], "voxels with a value"
    brain = Brain(mask, int(ndimage.label(mask)[1]), method)
    _require_brain(brain)
    figures = {"brain_volume_ml": mask.sum() * volume.voxel_ml, "mask_components": float(brain.components)}
    maps = Volume(volume.data * mask[..., None], volume.affine)
    outputs = _maps(maps, mask, f"{scan.rsplit('_', 1)[0]}_desc-preproc_noddi", scan, out)
    quality.draw_maps(out / outputs["figure"], maps, mask, NODDI_MAPS)
    _describe(out / outputs["image"], given, [f"brain mask: {method}"], NODDI_MAPS)
    return Done(outputs, _text(figures), quality.verdict(figures, given.options.quality))


def _require_brain(brain: Brain) -> None:
    if not brain.mask.any():
        raise UserError("no brain was found; name a brain mask in the sheet")


def _maps(volume: Volume, mask: NDArray[np.bool_], stem: str, scan: str, out: Path) -> dict[str, str]:
    outputs = {"image": f"{stem}.nii.gz", "mask": f"{stem}_mask.nii.gz", "figure": f"figures/{scan}.png"}
    write_volume(out / outputs["image"], volume)
    write_volume(out / outputs["mask"], Volume(mask.astype(np.float32), volume.affine), np.uint8)
    return outputs


def _required(given: _Given, name: str) -> Volume:
    path = given.path(name)
    if path is None:
        raise UserError(f"its {name} is missing from the ingested chunk; run ingest again")
    return read_volume(path)


def _mask(given: _Given, name: str) -> NDArray[np.bool_] | None:
    path = given.path(name)
    return None if path is None else read_volume(path).data > 0.5


def _steps(brain: Brain, options: PreprocessOptions, raised: float, used: Normalisation) -> list[str]:
    steps = [f"brain mask: {brain.method}"]
    if options.bias_field:
        steps += [f"negative intensities: all raised by {raised:g}"] if raised else []
        steps.append("N4 bias field correction")
    if options.space == "MNI152":
        steps.append(
            f"rigid + {'affine' if options.registration == 'affine' else 'affine + deformable'} registration to MNI152"
        )
    return [
        *steps,
        f"resampled to {options.voxel_size:g} mm",
        f"intensity: {used.method}, (x - {used.centre:.6g}) / {used.scale:.6g}",
    ]


def _describe(image: Path, given: _Given, steps: list[str], channels: Sequence[str] = ()) -> None:
    """The JSON that BIDS wants beside a derivative."""
    about = {"Sources": [f"{given.row['scan']} (sha256 {given.row['sha256']})"], "Steps": steps}
    named = {"Channels": list(channels)} if channels else {}
    write_json(image.with_name(image.name.replace(".nii.gz", ".json")), about | named)


def _code(options: PreprocessOptions) -> int:
    return MNI152 if options.space == "MNI152" else 1


def _text(figures: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in figures.items()}
