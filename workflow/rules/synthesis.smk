# What do brains look like, given group, age and other conditions?


use rule stage as sample_synthesis with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        autoencoder=autoencoders,
        held_out=told_people,
    output:
        made("{recipe}", "samples"),
    log:
        log_of("sample_synthesis", "{recipe}"),
    benchmark:
        benchmark_of("sample_synthesis", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        **of_task("sample_synthesis", "inference"),
    message:
        "Sample {wildcards.recipe} under every condition"


use rule stage as make_counterfactuals with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        autoencoder=autoencoders,
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "counterfactuals"),
    log:
        log_of("make_counterfactuals", "{recipe}"),
    benchmark:
        benchmark_of("make_counterfactuals", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        **of_task("make_counterfactuals", "counterfactuals"),
    message:
        "Make held-out scans of {wildcards.recipe} again under other conditions"


use rule stage as embed with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        autoencoder=autoencoders,
        data=training_data(),
        samples=made("{recipe}", "samples"),
    output:
        made("{recipe}", "embedding"),
    log:
        log_of("embed", "{recipe}"),
    benchmark:
        benchmark_of("embed", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("embed", "embedding"),
    message:
        "Embed the images of {wildcards.recipe}"


use rule stage as evaluate_synthesis with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        samples=made("{recipe}", "samples"),
        counterfactuals=made("{recipe}", "counterfactuals"),
        train=chunks_of("dataset", "train"),
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        log_of("evaluate_synthesis", "{recipe}"),
    benchmark:
        benchmark_of("evaluate_synthesis", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("evaluate_synthesis", "evaluation"),
    message:
        "Evaluate {wildcards.recipe}"
