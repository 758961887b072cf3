"""Train the denoiser of a recipe on images or latents."""

from pathlib import Path

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import folder, stage, stage_parser, state_folder
from pipeline_lib.training.denoiser import train_denoiser

parser = stage_parser(__doc__)
parser.add_argument("--recipe", required=True, help="name shown with the progress")
parser.add_argument("--state", type=Path, required=True, help="folder that keeps training progress")
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed or encoded training chunks")
parser.add_argument("--validation", nargs="+", type=folder, required=True, help="likewise for validation")
parser.add_argument("--autoencoders", nargs="*", type=folder, default=[], help="folders named by their role")

with stage(parser) as arguments:
    inputs = [*arguments.train, *arguments.validation, *arguments.autoencoders]
    train_denoiser(
        read_part(arguments.options),
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, inputs),
        {path.name: path for path in arguments.autoencoders},
    )
