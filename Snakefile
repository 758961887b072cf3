# From a cohort of brain MRI to trained generative models and an HTML report.
# Configuration in, rules included, targets named; what is computed lives in pipeline_lib.

from snakemake.utils import min_version

min_version("9.0")

if "recipes" not in config and not workflow.overwrite_configfiles:  # the demo

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/stage.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/frozen.smk"
include: "workflow/rules/autoencoder.smk"
include: "workflow/rules/latents.smk"
include: "workflow/rules/diffusion.smk"
include: "workflow/rules/anomaly.smk"
include: "workflow/rules/generation.smk"
include: "workflow/rules/synthesis.smk"
include: "workflow/rules/translation.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/retry.smk"


rule all:
    default_target: True
    input:
        when_recipes_fit([f"{results}/report/index.html"]),
        [f"{results}/report/figures/{recipe}" for recipe in plan.recipes],
        f"{results}/report/archive",
        native_maps(),
    localrule: True


rule preprocessed:
    input:
        [made("preprocess", chunk) for chunk in plan.chunks()],
    localrule: True


rule evaluated:
    input:
        when_recipes_fit([made(recipe, "evaluation") for recipe in plan.recipes]),
    localrule: True
