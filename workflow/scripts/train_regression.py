"""Train the regression of a translation, which adds to its linear fit."""

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import folder, stage, state_folder, training_options, training_parser
from pipeline_lib.training.regression import train_regression

parser = training_parser(__doc__)
parser.add_argument("--floor", type=folder, required=True, help="folder of the linear fit")
parser.set_defaults(role="regression")

with stage(parser) as arguments:
    train_regression(
        read_part(training_options(arguments)),
        arguments.train,
        arguments.validation,
        arguments.floor,
        arguments.out,
        state_folder(arguments.state, arguments, [*arguments.train, *arguments.validation, arguments.floor]),
        name=arguments.recipe,
        licence=arguments.licence,
    )
