"""A single network as a bundle that ships: a segmenter, or an autoencoder; a whole recipe is built by `build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline_lib.bundle_plan import CARD, LICENCE, PLAN, read_plan, stated
from pipeline_lib.bundles.build import held_out, learned_from, refuse_large, shrink, terms_of
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, write_text


class _Kind(NamedTuple):
    """What a card says of every network of a role."""

    question: str
    use: str
    limits: Sequence[str]


KINDS = {
    "segmenter": _Kind(
        "Which part of a slice is brain, and which lateral ventricles?",
        "In a recipe, `evaluation: {{segmenter: {name}}}` compares samples and held-out people by it. Images that were prepared otherwise are refused.",
        (
            "A ruler for groups of images that it measures alike. What it finds too large it finds too large in both; it is no volumetry of a person.",
            "It was taught by automatic labels, a silver standard.",
            "Slices along another plane, and brains with large lesions, were not among the images that it learned from.",
            "Not for diagnosis.",
        ),
    ),
    "image": _Kind(
        "A slice as a small latent, and back.",
        "In a recipe, `autoencoder: {{start_from: {name}, ...}}` trains it further on your scans, and a diffusion learns its latents. Its options "
        "are those of `autoencoder` in config/ixi_latent.yaml.",
        (
            "What a latent does not hold is lost: a diffusion of latents draws no finer detail than this network passes.",
            "Slices of other places, contrasts and voxel sizes than those above come back worse. Measure that before you train on its latents.",
            "Not for diagnosis.",
        ),
    ),
}


def build_network(
    folder: Path, name: str, out: Path, *, data: str, use: str = "", licence_file: Path | None = None,
    figures: Sequence[Mapping[str, Any]] = (),
) -> list[str]:  # fmt: skip
    """Write the bundle ``out/name`` of one trained network; what is to be said of it.

    Args:
        folder: of the network, with ``model.json``.
        data, use, licence_file: as of `build.build`.
        figures: of held-out people, in the place of those that its plan states.

    Raises:
        UserError: its role ships on its own nowhere, no terms or no figures are stated, or it is too large.
    """
    plan = read_plan(folder)
    if plan.get("role") not in KINDS:
        raise UserError(
            f"{folder}: the {plan.get('role', plan['kind'])} of a recipe ships with the rest of it: give results/<recipe>"
        )
    kind = KINDS[plan["role"]]
    shown = stated({"figures": list(figures) or plan.get("figures", [])})
    if not shown:
        raise UserError(f"{folder}: no figures of held-out people; measure them first, and give them with --figures")
    terms = terms_of(folder, plan, licence_file)
    with atomic_directory(out / name) as place:
        done = shrink(folder, place, {"figures": shown})
        write_text(place / LICENCE, terms)
        card = [
            f"# {name}\n",
            f"{use or kind.question}\n",
            "## Use\n",
            f"{kind.use.format(name=name)}\n",
            *learned_from(plan, data),
            *held_out(shown),
            "## Limits\n",
            *(f"- {limit}" for limit in kind.limits),
            f"- {done[0].upper()}{done[1:]}.",
        ]
        write_text(place / CARD, "\n".join(card) + "\n")
        size = refuse_large(place, name)
    return [done, f"{out / name}: {size / 1e6:.1f} MB"]


def is_network(folder: Path) -> bool:
    """Whether a folder holds a network and no whole recipe."""
    return (folder / PLAN).is_file() and "recipe" not in read_plan(folder)
