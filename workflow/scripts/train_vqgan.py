"""Train the vector-quantised autoencoder of a recipe."""

from pathlib import Path

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import folder, stage, stage_parser, state_folder
from pipeline_lib.training.vqgan import train_vqgan

parser = stage_parser(__doc__)
parser.add_argument("--recipe", required=True, help="name shown with the progress")
parser.add_argument("--role", required=True, choices=["image", "source", "target"], help="what it encodes")
parser.add_argument("--state", type=Path, required=True, help="folder that keeps training progress")
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed training chunks")
parser.add_argument("--validation", nargs="+", type=folder, required=True, help="packed validation chunks")

with stage(parser) as arguments:
    recipe = read_part(arguments.options)
    assert recipe.autoencoder is not None
    train_vqgan(
        recipe.autoencoder,
        recipe.data,
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, [*arguments.train, *arguments.validation]),
        arguments.role,
    )
