"""Train the denoiser of a recipe on images or latents."""

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import folder, stage, state_folder, training_options, training_parser
from pipeline_lib.training.denoiser import train_denoiser

parser = training_parser(__doc__)
parser.add_argument("--autoencoders", nargs="*", type=folder, default=[], help="folders named by their role")
parser.add_argument("--regression", type=folder, help="folder of the regression whose residual is learned")
parser.add_argument("--earlier", type=folder, help="folder of the denoiser that this one starts from")

with stage(parser) as arguments:
    inputs = [*arguments.train, *arguments.validation, *arguments.autoencoders]
    inputs += [path for path in (arguments.regression, arguments.earlier) if path]
    train_denoiser(
        read_part(training_options(arguments)),
        arguments.train,
        arguments.validation,
        arguments.out,
        state_folder(arguments.state, arguments, inputs),
        {path.name: path for path in arguments.autoencoders},
        regression=arguments.regression,
        name=arguments.recipe,
        licence=arguments.licence,
        start_from=arguments.earlier or arguments.start_from,
    )
