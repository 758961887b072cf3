"""Train the KL autoencoder of a recipe."""

from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.stage import stage, state_folder, training_options, training_parser
from pipeline_lib.training.vae import train_vae

parser = training_parser(__doc__)
parser.add_argument("--role", required=True, choices=["image", "source", "target"], help="what it encodes")

with stage(parser) as arguments:
    options = training_options(arguments)
    train_vae(
        AutoencoderOptions.model_validate(options["autoencoder"]),
        DataOptions.model_validate(options["data"]),
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, [*arguments.train, *arguments.validation]),
        arguments.role,
        arguments.licence,
    )
