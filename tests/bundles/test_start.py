"""A training starts from other weights: the same network at its first step, and a clear word where it is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_chunks import packed
from tiny_training import NETWORK, RECIPE, VAE, train

from pipeline_lib.bundle_plan import content_of, starting_place
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.bundles.start import Start, read_start
from pipeline_lib.config.load import load_config
from pipeline_lib.dataset.conditions import Condition, Conditions
from pipeline_lib.dataset.people import hashed_id
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.unet import UNet
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.vae import train_vae

GROUP = Condition("group", "category", ("AD", "CN"))
AGE = Condition("age", "number", (), 50.0, 10.0, (20.0, 30.0, 50.0, 70.0, 80.0))
SEX = Condition("sex", "category", ("F", "M"))
ARCHITECTURE: dict[str, Any] = {
    "dimensions": 2, "in_channels": 1, "out_channels": 1, "channels": [8, 8], "blocks": 1, "attention": [False, True],
    "head_channels": 4,
}  # fmt: skip


def unet(*conditions: Condition, seed: int = 0, **changes: Any) -> UNet:
    torch.manual_seed(seed)
    network = UNet(**ARCHITECTURE | {"conditions": [each.size for each in conditions]} | changes)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def start_of(network: UNet, *conditions: Condition) -> Start:
    plan = {"conditions": Conditions(conditions).described(), "architecture": ARCHITECTURE}
    return Start("there", "hash", network.state_dict(), plan)


def fresh(*conditions: Condition, **changes: Any) -> UNet:
    torch.manual_seed(9)
    return UNet(**ARCHITECTURE | {"conditions": [each.size for each in conditions]} | changes).eval()


def output(network: UNet, *told: float) -> torch.Tensor:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return network(x, torch.tensor([3, 700]), torch.tensor([told] * 2) if told else None)


def test_conditions_known_by_name_mean_what_they_meant_in_another_order() -> None:
    there, here = unet(GROUP, AGE), fresh(AGE, GROUP)
    start_of(there, GROUP, AGE).load_into(here, "denoiser", Conditions([AGE, GROUP]))
    torch.testing.assert_close(output(here, 0.7, 1.0), output(there, 1.0, 0.7))
    torch.testing.assert_close(output(here), output(there))


def test_a_network_told_nothing_is_what_one_told_something_starts_from() -> None:
    there, here = unet(), fresh(GROUP, AGE)
    start_of(there).load_into(here, "denoiser", Conditions([GROUP, AGE]))
    for told in ((0.0, -1.0), (1.0, 2.0)):
        torch.testing.assert_close(output(here, *told), output(there))


def test_what_is_new_starts_from_its_null_and_what_is_gone_from_the_other_network_hidden() -> None:
    there, here = unet(GROUP), fresh(GROUP, SEX)
    start_of(there, GROUP).load_into(here, "denoiser", Conditions([GROUP, SEX]))
    torch.testing.assert_close(output(here, 1.0, 0.0), output(here, 1.0, 1.0))
    torch.testing.assert_close(output(here, 1.0, 0.0), output(here, 1.0, float("nan")))
    assert not torch.allclose(output(here, 0.0, 0.0), output(here, 1.0, 0.0)), "the group is told as before"
    without = fresh()
    start_of(there, GROUP).load_into(without, "denoiser")
    assert "pool.weight" not in without.state_dict()


def test_a_new_condition_is_learned_from_the_first_step() -> None:
    """What tells its categories apart has a gradient, though none of them acts yet."""
    there, here = unet(AGE), fresh(AGE, GROUP).train()
    start_of(there, AGE).load_into(here, "denoiser", Conditions([AGE, GROUP]))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    told = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    pooled = here.pool(here._condition(told, 2))
    torch.testing.assert_close(pooled[0], pooled[1])
    (here(x, torch.tensor([3, 700]), told) * x).sum().backward()
    one, other = here.condition[1].weight.grad
    known = here.condition[0].layers[-1].bias.grad
    assert (one - other).norm() > 0.1 * known.norm()


def test_categories_that_the_start_does_not_know() -> None:
    there = start_of(unet(GROUP, AGE), GROUP, AGE)
    assert there.new_categories(Conditions([AGE, GROUP])) == []
    assert there.new_categories(Conditions([SEX, AGE])) == [0]
    assert there.new_categories(Conditions([AGE, Condition("group", "category", ("AD", "CN", "MCI"))])) == [1]
    assert start_of(unet(GROUP), GROUP).new_categories(Conditions([AGE, GROUP])) == []


def test_detail_may_be_added_behind_a_network_without_and_not_taken_away() -> None:
    there, here = unet(GROUP), fresh(GROUP, detail=4)
    start_of(there, GROUP).load_into(here, "denoiser", Conditions([GROUP]))
    torch.testing.assert_close(output(here, 1.0), output(there, 1.0))
    with pytest.raises(UserError, match=r"detail\.guide\.weight is in the weights only"):
        start_of(here, GROUP).load_into(unet(GROUP), "denoiser", Conditions([GROUP]))


def test_a_new_category_starts_from_the_null_and_the_others_stay() -> None:
    there, more = unet(GROUP), Condition("group", "category", ("AD", "CN", "MCI"))
    here = fresh(more)
    start_of(there, GROUP).load_into(here, "denoiser", Conditions([more]))
    torch.testing.assert_close(output(here, 1.0), output(there, 1.0))
    torch.testing.assert_close(output(here, 2.0), output(there))


def test_a_number_keeps_the_units_in_which_it_was_learned() -> None:
    older = Condition("age", "number", (), 70.0, 5.0, (60.0, 65.0, 70.0, 75.0, 80.0))
    (kept,) = start_of(unet(AGE), AGE).encoded_alike(Conditions([older]))
    assert (kept.mean, kept.scale, kept.quantiles) == (50.0, 10.0, older.quantiles)


def test_another_network_is_refused_with_the_layer_and_what_the_other_is() -> None:
    with pytest.raises(
        UserError,
        match=r"start_from: there is of another network: time.0.weight is \[32, 8\] there and \[64, 16\] here",
    ) as said:
        start_of(unet()).load_into(fresh(channels=[16, 16]), "denoiser")
    assert "it has dimensions 2, in_channels 1" in str(said.value)
    assert len(str(said.value).splitlines()) == 1
    with pytest.raises(UserError, match="trained with prediction x0, here it is eps; set diffusion.prediction: x0"):
        Start("there", "", {}, {"diffusion": {"prediction": "x0"}}).refuse_otherwise("denoiser", prediction="eps")


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    folder = tmp_path_factory.mktemp("chunks")
    return [packed(folder, "train-anat-0001", [("a", "CN"), ("b", "AD")])], [
        packed(folder, "validation-anat-0001", [("c", "CN")])
    ]


@pytest.fixture(scope="module")
def before(chunks: tuple[list[Path], list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before") / "first" / "diffusion"
    train_denoiser(RECIPE, *chunks, folder, folder.parent / "state", {}, licence="CC0")
    return folder


def test_a_training_goes_on_from_a_bundle_with_its_people_and_its_terms(before: Path, tmp_path: Path) -> None:
    others = [packed(tmp_path, "train-anat-0001", [("x", "CN"), ("y", "AD")])], []
    recipe = RECIPE.model_copy(
        update={"denoiser": RECIPE.denoiser.model_copy(update={"training": RECIPE.denoiser.training.model_copy(update={"learning_rate": 1e-12})})}
    )  # fmt: skip
    train_denoiser(
        recipe, *others, tmp_path / "diffusion", tmp_path / "state", {}, licence="CC BY", start_from=before.parent
    )
    one, other = load_bundle(before), load_bundle(tmp_path / "diffusion")
    for name, value in one.module.state_dict().items():
        torch.testing.assert_close(other.module.state_dict()[name], value, atol=1e-6, rtol=0)
    assert other.info["people"] == sorted(hashed_id(person) for person in "abxy"), "hashes travel on"
    assert other.info["train_people"] == 2
    assert other.info["licence"] == "CC BY; started from CC0"
    assert other.info["started_from"]["weights"] == one.info["weights_sha256"][:16]
    assert str(before.parents[2]) not in (tmp_path / "diffusion" / "model.json").read_text()


def test_a_new_condition_is_learned_faster_than_what_the_start_knows(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    """AdamW's first step moves a number by the rate, whatever its gradient."""

    def trained(name: str, condition: list[str], start_from: Path | str, **training: float) -> dict[str, torch.Tensor]:
        training_options = RECIPE.denoiser.training.model_copy(update={"warmup": 0, "weight_decay": 0, **training})
        denoiser = RECIPE.denoiser.model_copy(update={"condition": condition, "training": training_options})
        recipe = RECIPE.model_copy(update={"denoiser": denoiser})
        train_denoiser(recipe, *chunks, tmp_path / name, tmp_path / f"{name}-state", {}, start_from=start_from)
        return load_bundle(tmp_path / name).module.state_dict()

    rate = 1e-4
    before = trained("before", [], "", steps=20, learning_rate=1e-2)
    told = trained("told", ["group"], tmp_path / "before", steps=1, learning_rate=rate)
    moved = (told["condition.0.weight"] - told["null"][0]).abs().max().item()
    kept = max((told[name] - value).abs().max().item() for name, value in before.items())
    assert kept < 1.01 * rate
    assert moved > 10 * rate


def test_weights_that_changed_since_the_run_was_planned_are_refused(before: Path) -> None:
    assert read_start(before, "denoiser", content=content_of(starting_place(before, "denoiser"))).state
    with pytest.raises(UserError, match="changed since the run was planned"):
        read_start(before, "denoiser", content="0" * 16)


def test_a_file_of_torch_with_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1), "code": Path("x")}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="bad.pt cannot be read as weights") as said:
        read_start(tmp_path / "bad.pt", "autoencoder")
    assert len(str(said.value).splitlines()) == 1
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_start(tmp_path / "list.pt", "autoencoder")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match="cut.safetensors cannot be read as weights"):
        read_start(tmp_path / "cut.safetensors", "autoencoder")


@pytest.mark.parametrize("names", ["of today", "of MONAI Generative"])
def test_weights_of_monai_in_a_file(names: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    pytest.importorskip("einops", reason="MONAI's attention needs einops")
    nets = pytest.importorskip("monai.networks.nets")
    theirs = nets.AutoencoderKL(
        spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 8), latent_channels=2, num_res_blocks=(1, 1),
        attention_levels=(False, False), norm_num_groups=4, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    ).eval()  # fmt: skip
    state = {
        key.replace("postconv", "conv") if "Generative" in names else key: value
        for key, value in theirs.state_dict().items()
    }
    file = tmp_path / ("weights.safetensors" if "Generative" in names else "weights.pt")
    save_file(state, file) if file.suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    with pytest.raises(UserError, match="do not tell norm_num_groups; set autoencoder.groups"):
        train_vae(VAE, RECIPE.data, *chunks, tmp_path / "out", tmp_path / "state", "image", start_from=file)
    training = VAE.training.model_copy(update={"learning_rate": 1e-12})
    options = VAE.model_copy(update={"groups": 4, "training": training})
    train_vae(options, RECIPE.data, *chunks, tmp_path / "vae", tmp_path / "state2", "image", start_from=file)
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            load_bundle(tmp_path / "vae").module.encode(x)[0], theirs.encode(x)[0], atol=1e-4, rtol=1e-4
        )


def test_linear_upsampling_is_an_interpolation_and_a_convolution() -> None:
    torch.manual_seed(0)
    network = KLAutoencoder(
        dimensions=3, in_channels=1, channels=[8, 8], latent_channels=2, blocks=1, upsampling="linear"
    )
    stage = network.decoder.stages[1]
    x = torch.randn(1, 8, 3, 4, 5)
    expected = stage.conv(torch.nn.Upsample(scale_factor=2, mode="trilinear")(x))
    torch.testing.assert_close(stage(x), expected)


def test_defaults_of_fine_tuning_are_a_lower_rate_and_a_short_warm_up(before: Path) -> None:
    denoiser = {**NETWORK, "start_from": str(before), "training": {"steps": 10}}
    recipe = {
        "task": "generation",
        "data": {"size": [16, 16]},
        "diffusion": {"timesteps": 10},
        "denoiser": denoiser,
    }
    training = load_config({"recipes": {"more": recipe}}).recipes["more"].denoiser.training
    rate = read_json(before / "model.json")["options"]["training"]["learning_rate"]
    assert (training.learning_rate, training.warmup) == (pytest.approx(rate / 5), 100)
    denoiser["training"] = {"steps": 10, "learning_rate": 1e-3, "warmup": 7}
    training = load_config({"recipes": {"more": recipe}}).recipes["more"].denoiser.training
    assert (training.learning_rate, training.warmup) == (1e-3, 7), "what is said is kept"
    denoiser["start_from"] = "nowhere"
    with pytest.raises(UserError, match="recipes.more.denoiser.start_from: nowhere: no such bundle"):
        load_config({"recipes": {"more": recipe}})


def test_a_vqgan_starts_from_the_one_of_its_role(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    first = load_bundle(train("vqgan", chunks, tmp_path / "first" / "autoencoder" / "image", tmp_path / "state")).module
    start = read_start(tmp_path / "first", "autoencoder", "image")
    network = VQGAN(dimensions=2, in_channels=1, channels=[8, 8], blocks=1, codes=8, latent_channels=2)
    start.load_into(network, "autoencoder")
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in network.state_dict().items())
    assert start.name == "first/autoencoder/image"
    with pytest.raises(UserError, match="holds no model.json: give a bundle"):
        read_start(tmp_path / "first", "autoencoder", "target")
