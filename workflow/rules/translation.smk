# What would the target modality look like, given the source?


use rule stage as fit_floor with:
    input:
        train=chunks_of("dataset", "train"),
    output:
        made("{recipe}", "floor"),
    log:
        log_of("fit_floor", "{recipe}"),
    benchmark:
        benchmark_of("fit_floor", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("translation", trained=True),
    # The longest way to a result.
    priority: 10
    params:
        **of_task("fit_floor", "floor"),
    message:
        "Fit the linear floor of {wildcards.recipe}"


use rule stage as train_regression with:
    input:
        gate,
        train=chunks_of("dataset", "train"),
        validation=chunks_of("dataset", "validation"),
        floor=made("{recipe}", "floor"),
    output:
        made("{recipe}", "regression"),
    log:
        log_of("train_regression", "{recipe}"),
    benchmark:
        benchmark_of("train_regression", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("translation", trained=True),
    # The longest way to a result.
    priority: 10
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        **runs("train_regression", "regression"),
        **trains("regression"),
    message:
        "Train the regression of {wildcards.recipe}"


use rule stage as infer_translation with:
    input:
        diffusion=last_network,
        autoencoders=autoencoders,
        regression=regressions,
        floor=made("{recipe}", "floor"),
        dataset=made("{recipe}", "dataset", "{chunk}"),
        latents=latents_of_chunk,
    output:
        made("{recipe}", "inference", "{chunk}"),
    log:
        log_of("infer_translation", "{recipe}", "{chunk}"),
    benchmark:
        benchmark_of("infer_translation", "{recipe}", "{chunk}")
    wildcard_constraints:
        recipe=recipes_of("translation"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        **of_task("infer_translation", "inference"),
    message:
        "Translate {wildcards.chunk} ({wildcards.recipe})"


use rule stage as evaluate_translation with:
    input:
        diffusion=last_network,
        inference=chunks_of("inference", "validation", "test"),
        datasets=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        log_of("evaluate_translation", "{recipe}"),
    benchmark:
        benchmark_of("evaluate_translation", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("translation"),
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("evaluate_translation", "evaluation"),
        regions=lambda wildcards: plan.regions(wildcards.recipe),
    message:
        "Evaluate {wildcards.recipe}"
