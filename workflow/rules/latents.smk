# Images encoded once; mean and standard deviation kept.


use rule stage as latents with:
    input:
        dataset=made("{recipe}", "dataset", "{chunk}"),
        autoencoders=autoencoders,
    output:
        made("{recipe}", "latents", "{chunk}"),
    log:
        log_of("latents", "{recipe}", "{chunk}"),
    benchmark:
        benchmark_of("latents", "{recipe}", "{chunk}")
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **runs("latents", "latents"),
    message:
        "Encode {wildcards.chunk} for {wildcards.recipe}"
