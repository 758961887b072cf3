"""Weights from and to MONAI's DiffusionModelUNet and AutoencoderKL, with equal outputs.

The structures agree where MONAI's networks are made without conditions (`with_conditioning`, `num_class_embeds`) and
without `resblock_updown`, `norm_num_groups` is this network's `groups`, `num_head_channels` is `head_channels` at
every level, `num_res_blocks` is the same at every level, and the autoencoder has no attention. Only state dicts are
handled; MONAI itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.unet import UNet

_PARTS = {
    "residual.norm": "norm",
    "residual.conv1": "conv1.conv",
    "residual.conv2": "conv2.conv",
    "residual.embed": "time_emb_proj",
    "residual.skip": "skip_connection.conv",
    "attention.query": "attn.to_q",
    "attention.out": "attn.out_proj",
    "attention.norm": "norm",
}
_UNET = {
    r"^first\.": "conv_in.conv.",
    r"^time\.": "time_embed.",
    r"^norm\.": "out.0.",
    r"^last\.": "out.2.conv.",
    r"^downsample\.(\d+)\.conv": r"down_blocks.\1.downsampler.op.conv",
    r"^upsample\.(\d+)\.conv": r"up_blocks.\1.upsampler.postconv.conv",
    r"^(down|up)\.(\d+)\.(\d+)\.residual\.": r"\1_blocks.\2.resnets.\3.residual.",
    r"^(down|up)\.(\d+)\.(\d+)\.attention\.": r"\1_blocks.\2.attentions.\3.attention.",
    r"^middle\.0\.residual\.": "middle_block.resnet_1.residual.",
    r"^middle\.0\.attention\.": "middle_block.attention.attention.",
    r"^middle\.1\.residual\.": "middle_block.resnet_2.residual.",
}
_AUTOENCODER = {
    r"^mean\.": "quant_conv_mu.conv.",
    r"^log_variance\.": "quant_conv_log_sigma.conv.",
    r"^post\.": "post_quant_conv.conv.",
    r"^(encoder|decoder)\.first\.": r"\1.blocks.0.conv.",
}

_OLD = {"postconv.conv.": "conv.conv.", ".attn.to_": ".to_", ".attn.out_proj.": ".proj_attn."}
"""Parts of names as MONAI Generative had them, by what MONAI calls them now."""


def is_monai_autoencoder(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one of MONAI's AutoencoderKL, of any version."""
    return "encoder.blocks.0.conv.weight" in state and "quant_conv_mu.conv.weight" in state


def load_monai_unet(unet: UNet, state: Mapping[str, Tensor]) -> None:
    """Give `unet` the weights of a DiffusionModelUNet's state dict."""
    _load(unet, state, _unet_name)


def monai_unet_state(unet: UNet) -> dict[str, Tensor]:
    """The state dict that a DiffusionModelUNet of the same structure loads."""
    return _export(unet, _unet_name)


def load_monai_autoencoder(autoencoder: KLAutoencoder, state: Mapping[str, Tensor]) -> None:
    """Give `autoencoder` the weights of an AutoencoderKL's state dict."""
    _load(autoencoder, state, _autoencoder_name(autoencoder))


def monai_autoencoder_state(autoencoder: KLAutoencoder) -> dict[str, Tensor]:
    """The state dict that an AutoencoderKL of the same structure loads."""
    return _export(autoencoder, _autoencoder_name(autoencoder))


def _unet_name(key: str) -> str:
    for pattern, replacement in _UNET.items():
        key = re.sub(pattern, replacement, key)
    for ours, theirs in _PARTS.items():
        key = key.replace(ours, theirs)
    return key.replace("attention.key_value", "attn.to_{}")


def _autoencoder_name(autoencoder: KLAutoencoder) -> Callable[[str], str]:
    """MONAI numbers an encoder's or decoder's layers from the first convolution to the last."""
    counts = {"encoder": len(autoencoder.encoder.stages), "decoder": len(autoencoder.decoder.stages)}

    def name(key: str) -> str:
        for pattern, replacement in _AUTOENCODER.items():
            key = re.sub(pattern, replacement, key)
        for coder, count in counts.items():
            key = re.sub(rf"^{coder}\.norm\.", f"{coder}.blocks.{count + 1}.", key)
            key = re.sub(rf"^{coder}\.last\.", f"{coder}.blocks.{count + 2}.conv.", key)
        stage = re.match(r"(encoder|decoder)\.stages\.(\d+)\.(.*)", key)
        if stage is None:
            return key
        coder, number, rest = stage.groups()
        rest = re.sub(r"^(conv1|conv2)\.", r"\1.conv.", rest)
        rest = re.sub(r"^skip\.", "nin_shortcut.conv.", rest)
        rest = re.sub(r"^conv\.", "conv.conv." if coder == "encoder" else "postconv.conv.", rest)
        return f"{coder}.blocks.{int(number) + 1}.{rest}"

    return name


def _load(module: nn.Module, state: Mapping[str, Tensor], name: Callable[[str], str]) -> None:
    left = dict(state)
    ours = {}
    for key, value in module.state_dict().items():
        theirs = name(key)
        theirs = next((old for old in (theirs, *_older(theirs)) if old.format("k") in left), theirs)
        pieces = [theirs.format(part) for part in ("k", "v")] if "{}" in theirs else [theirs]
        missing = [piece for piece in pieces if piece not in left]
        if missing:
            raise ValueError(f"the MONAI state dict has no {missing[0]!r}, which is needed for {key!r}")
        found = torch.cat([left.pop(piece) for piece in pieces])
        if found.shape != value.shape:
            raise ValueError(f"{theirs!r} has shape {tuple(found.shape)}; {tuple(value.shape)} is needed for {key!r}")
        ours[key] = found
    if left:
        raise ValueError(f"the MONAI state dict has {next(iter(left))!r}, for which there is no place here")
    module.load_state_dict(ours)


def _older(name: str) -> list[str]:
    """What a weight was called before."""
    return [name.replace(new, old) for new, old in _OLD.items() if new in name]


def _export(module: nn.Module, name: Callable[[str], str]) -> dict[str, Tensor]:
    state = {}
    for key, value in module.state_dict().items():
        theirs = name(key)
        if "{}" in theirs:
            for part, piece in zip(("k", "v"), value.chunk(2), strict=True):
                state[theirs.format(part)] = piece.clone()
        else:
            state[theirs] = value.clone()
    return state
