"""Methods text: every choice has its words and its reference, and nothing is left unresolved."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline_lib.config.fine_tuning import NEW_CATEGORIES
from pipeline_lib.config.schema import PreprocessOptions, RecipeOptions, SplitOptions
from pipeline_lib.report.bibtex import bibtex
from pipeline_lib.report.methods import (
    REFERENCES,
    methods_text,
    preprocess_paragraph,
    recipe_methods,
    scan_paragraph,
    split_paragraph,
)

VAE: dict[str, Any] = {"task": "synthesis", "autoencoder": {"kind": "vae"}, "denoiser": {"condition": ["group"]}}
VQGAN: dict[str, Any] = {
    "task": "translation",
    "autoencoder": {"kind": "vqgan"},
    "data": {"modality": "dwi", "target": "noddi"},
}
SIMPLEX: dict[str, Any] = {"task": "anomaly", "diffusion": {"noise": {"kind": "simplex"}}}


@pytest.mark.parametrize(
    ("options", "cited"),
    [
        ({"task": "generation"}, ["2006.11239", "2010.02502", "2102.09672"]),
        ({"task": "generation", "sampling": {"sampler": "dpm_solver"}}, ["2211.01095"]),
        ({"task": "generation", "diffusion": {"prediction": "v", "zero_terminal_snr": True}}, ["2202.00512", "2305.08891"]),
        ({"task": "generation", "diffusion": {"schedule": "sigmoid", "loss_weight": "min_snr"}}, ["2212.11972", "2303.09556"]),
        (SIMPLEX, ["AnoDDPM"]),
        ({"task": "anomaly", "diffusion": {"noise": {"kind": "coarse"}, "shift": -1}}, ["2301.08330", "2301.11093"]),
        (VAE, ["2112.10752", "1312.6114", "2207.12598"]),
        (VQGAN, ["2012.09841", "1711.00937"]),
    ],
)  # fmt: skip
def test_choices_are_cited(options: dict[str, Any], cited: list[str]) -> None:
    text = recipe_methods(RecipeOptions.model_validate(options))
    references = " ".join(text.references)
    assert all(reference in references for reference in cited)
    assert not any("[" in paragraph.replace("[-1, 1]", "") for paragraph in text.paragraphs)


def test_software_is_told_with_its_versions() -> None:
    made = recipe_methods(
        RecipeOptions(task="generation"),
        {"pipeline_lib": "0.1.0", "snakemake": "9.1", "torch": "2.13.0", "nilearn": None},
    )
    assert (
        made.paragraphs[-1]
        == "The model was made with pipeline_lib 0.1.0, Snakemake (Mölder et al., 2021) 9.1 and PyTorch 2.13.0."
    )
    assert any("F1000Research" in reference for reference in made.references)


def test_changes_of_training_images_are_told_as_they_were_made() -> None:
    scans = " ".join(recipe_methods(RecipeOptions.model_validate({"task": "anomaly"})).paragraphs)
    assert "left and right exchanged in half of them, rotated by up to 6 degrees, scaled by up to 7 %" in scans
    sagittal = {"task": "anomaly", "data": {"slices": {"plane": "sagittal"}}}
    assert "left and right" not in " ".join(recipe_methods(RecipeOptions.model_validate(sagittal)).paragraphs)
    latent = " ".join(recipe_methods(RecipeOptions.model_validate(VAE)).paragraphs)
    assert latent.count("changed at random") == 1, "those of the autoencoder; latents are encoded once"
    pictures = {"task": "generation", "data": {"modality": "image"}}
    assert "changed at random" not in " ".join(recipe_methods(RecipeOptions.model_validate(pictures)).paragraphs)


@pytest.mark.parametrize("method", ["learned", "given", "synthstrip", "hd-bet", "none"])
@pytest.mark.parametrize("space", ["MNI152", "native"])
def test_preprocessing_is_told_as_it_was_done(method: str, space: str) -> None:
    options = PreprocessOptions.model_validate({"brain_extraction": method, "space": space, "bias_field": False})
    text = methods_text(preprocess_paragraph(options, {"T1w"}))
    assert ("MNI152" in text.paragraphs[0]) == (space == "MNI152")
    assert "N4" not in text.paragraphs[0]
    assert ("SynthStrip" in " ".join(text.references)) == (method == "synthstrip")


def test_deformation_and_white_stripe_are_cited() -> None:
    plain = methods_text(preprocess_paragraph(PreprocessOptions(), {"T1w"}))
    options = PreprocessOptions(registration="deformable", intensity="whitestripe")
    text = methods_text(preprocess_paragraph(options, {"T1w"}))
    for cited in ("Rueckert D", "Shinohara RT"):
        assert cited in " ".join(text.references)
        assert cited not in " ".join(plain.references)


def test_fitted_noddi_maps_cite_model_and_software() -> None:
    for noddi, cited in (("amico", True), ("given", False)):
        references = " ".join(methods_text(preprocess_paragraph(PreprocessOptions(noddi=noddi), {"dwi"})).references)
        assert ("NeuroImage 2012; 61(4):1000-1016" in references) == cited
        assert ("NeuroImage 2015; 105:32-44" in references) == cited


def test_a_scan_is_told_as_its_own_kind() -> None:
    options = PreprocessOptions()
    dwi, stripped, head, slices = (
        scan_paragraph(options, row)
        for row in (
            {"modality": "dwi"},
            {"modality": "T1w", "brain_method": "already stripped"},
            {"modality": "T1w", "brain_method": "learned"},
            {"modality": "image"},
        )
    )
    assert "N4" not in dwi
    assert "MNI152" not in dwi
    assert "mean b0" in dwi
    assert "U-Net" in head
    assert "U-Net" not in stripped
    assert "already stripped" in stripped
    assert "more than 20 pieces" in head
    assert "registration cost above -0.5" in head
    assert "brain" not in slices


def test_a_scan_whose_mask_was_given_is_not_said_to_be_extracted() -> None:
    text = scan_paragraph(PreprocessOptions(), {"modality": "T1w", "brain_method": "given"})
    assert "masks given in the sheet were used" in text
    assert "U-Net" not in text
    assert "Where the sheet gave a brain mask, it was used" in preprocess_paragraph(PreprocessOptions(), {"T1w"})


@pytest.mark.parametrize("options", [SIMPLEX, {"task": "generation"}, VAE, VQGAN])
def test_every_network_tells_its_weight_decay_and_the_course_of_its_learning_rate(options: dict[str, Any]) -> None:
    training = {"weight_decay": 0.03, "learning_rate": 0.002, "warmup": 70}
    sections = ("autoencoder", "denoiser") if "autoencoder" in options else ("denoiser",)
    values = options | {name: {**options.get(name, {}), "training": training} for name in sections}
    text = " ".join(recipe_methods(RecipeOptions.model_validate(values)).paragraphs)
    told = "weight decay 0.03, learning rate 0.002 after 70 steps of warm-up and from there down to 0 by half a cosine"
    assert text.count(told) == len(sections)


def test_no_more_sampling_steps_are_told_than_there_are_timesteps_to_undo() -> None:
    for task, start, steps in (("anomaly", {"start": 0.1}, 20), ("generation", {}, 50)):
        values = {"task": task, "diffusion": {"timesteps": 200}, "sampling": start}
        assert f"over {steps} steps" in " ".join(recipe_methods(RecipeOptions.model_validate(values)).paragraphs)


def test_a_training_that_may_stop_early_says_whose_weights_are_used() -> None:
    values = {"task": "generation", "denoiser": {"training": {"patience": 5}}}
    text = " ".join(recipe_methods(RecipeOptions.model_validate(values)).paragraphs)
    assert "at the lowest validation loss; training stopped after 5 validations without a lower one" in text


def test_a_start_from_weights_tells_at_which_rate_new_categories_were_learned() -> None:
    told = {"start_from": "generator-t1", "condition": ["group"]}
    found = recipe_methods(RecipeOptions.model_validate({"task": "synthesis", "denoiser": told}))
    assert f"did not know is learned at a highest rate of {NEW_CATEGORIES:g}" in " ".join(found.paragraphs)
    assert any("Gal et al" in reference or "Gal R" in reference for reference in found.references)
    for told in ([], ["age", "slice"]):
        denoiser = {"start_from": "generator-t1", "condition": told}
        untold = RecipeOptions.model_validate({"task": "generation", "denoiser": denoiser})
        assert "categories" not in " ".join(recipe_methods(untold).paragraphs)


def test_split_names_its_fractions() -> None:
    assert "(70%, 15%, 15%), stratified by group, sex and age band" in split_paragraph(SplitOptions())


def test_what_the_model_and_its_samples_were_told_is_said() -> None:
    told = {"condition": ["group", "age", "slice"], "drop_condition": 0.2}
    values: dict[str, Any] = {"task": "synthesis", "denoiser": told}
    values["sampling"] = {"conditions": {"age": [25, 70]}, "count": 10}
    text = " ".join(recipe_methods(RecipeOptions.model_validate(values)).paragraphs)
    assert "told the group, the age and the slice's position" in text
    assert "all were hidden in 20% of the training images and each by chance in as many again" in text
    assert "10 of each combination of conditions" in text
    assert "What was not varied (the slice's position) was drawn as held-out people have it" in text
    age = RecipeOptions.model_validate({"task": "synthesis", "denoiser": {"condition": ["age"]}})
    assert "combination" not in " ".join(recipe_methods(age).paragraphs), "numbers that nobody listed are not varied"
    plain = " ".join(recipe_methods(RecipeOptions.model_validate({"task": "generation"})).paragraphs)
    assert "told" not in plain
    assert "combination" not in plain


def test_every_reference_is_also_bibtex() -> None:
    entries = {key: bibtex(key, text) for key, (_, text) in REFERENCES.items()}
    assert all(f"year = {{{REFERENCES[key][0][-4:]}}}" in entry for key, entry in entries.items())
    assert all(entry.count("{") == entry.count("}") for entry in entries.values())
    assert entries["tustison"] == (
        "@article{tustison,\n  author = {Tustison, N. J. and Avants, B. B. and Cook, P. A. and others},\n"
        "  title = {{N4ITK: improved N3 bias correction}},\n  journal = {IEEE Transactions on Medical Imaging},\n"
        "  year = {2010},\n  volume = {29},\n  number = {6},\n  pages = {1310--1320},\n}"
    )
    assert entries["ho"].startswith("@inproceedings")
    assert "eprint = {2006.11239}" in entries["ho"]
    with pytest.raises(ValueError, match="where and when"):
        bibtex("x", "Nobody A. A title. In a drawer")


def test_bibtex_has_what_is_cited_and_no_more() -> None:
    found = methods_text("A model [ho] [song].", "Again [ho].")
    assert re.findall(r"@\w+{(\w+)", found.bibtex) == ["ho2020", "song2021"]
