"""Train the KL autoencoder of a recipe."""

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import stage, state_folder, training_options, training_parser
from pipeline_lib.training.vae import train_vae

parser = training_parser(__doc__)
parser.add_argument("--role", required=True, choices=["image", "source", "target"], help="what it encodes")

with stage(parser) as arguments:
    recipe = read_part(training_options(arguments))
    assert recipe.autoencoder is not None
    train_vae(
        recipe.autoencoder,
        recipe.data,
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, [*arguments.train, *arguments.validation]),
        arguments.role,
        arguments.licence,
        arguments.start_from,
    )
