# How well does plain DDPM learn these images?


use rule stage as sample_generation with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        held_out=told_people,
    output:
        made("{recipe}", "samples"),
    log:
        log_of("sample_generation", "{recipe}"),
    benchmark:
        benchmark_of("sample_generation", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("generation"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        **of_task("sample_generation", "inference"),
    message:
        "Sample {wildcards.recipe} at every checkpoint"


use rule stage as evaluate_generation with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        samples=made("{recipe}", "samples"),
        train=chunks_of("dataset", "train"),
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        log_of("evaluate_generation", "{recipe}"),
    benchmark:
        benchmark_of("evaluate_generation", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("generation"),
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("evaluate_generation", "evaluation"),
    message:
        "Evaluate {wildcards.recipe}"
