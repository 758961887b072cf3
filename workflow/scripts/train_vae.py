"""Train the KL autoencoder of a recipe."""

import json
from pathlib import Path

from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.stage import folder, stage, stage_parser, state_folder
from pipeline_lib.training.vae import train_vae

parser = stage_parser(__doc__)
parser.add_argument("--recipe", required=True, help="name shown with the progress")
parser.add_argument("--role", required=True, choices=["image", "source", "target"], help="what it encodes")
parser.add_argument("--state", type=Path, required=True, help="folder that keeps training progress")
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed training chunks")
parser.add_argument("--validation", nargs="+", type=folder, required=True, help="packed validation chunks")

with stage(parser) as arguments:
    options = json.loads(arguments.options)
    train_vae(
        AutoencoderOptions.model_validate(options["autoencoder"]),
        DataOptions.model_validate(options["data"]),
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, [*arguments.train, *arguments.validation]),
        arguments.role,
    )
