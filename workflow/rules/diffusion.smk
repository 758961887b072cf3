# The denoiser of a recipe, trained on images or on latents.


use rule stage as train_denoiser with:
    input:
        gate,
        train=training_data("train"),
        validation=training_data("validation"),
        autoencoders=autoencoders,
        regression=refined,
        earlier=earlier,
    output:
        made("{recipe}", "diffusion"),
    log:
        log_of("train_denoiser", "{recipe}"),
    benchmark:
        benchmark_of("train_denoiser", "{recipe}")
    wildcard_constraints:
        recipe=trained_recipes(),
    priority: 5
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
    params:
        **runs("train_denoiser", "denoiser"),
        **trains("denoiser"),
    message:
        "Train the denoiser of {wildcards.recipe}"
