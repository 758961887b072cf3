# A recipe applied as it was trained elsewhere: what its training would have made comes from a bundle.


use rule stage as from_bundle with:
    output:
        made("{recipe}", "{part}"),
    log:
        log_of("from_bundle", "{recipe}", "{part}"),
    benchmark:
        benchmark_of("from_bundle", "{recipe}", "{part}")
    wildcard_constraints:
        recipe=frozen_recipes(),
        part="diffusion|autoencoder/[a-z]+|regression|standards|floor",
    localrule: True
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        **runs("from_bundle"),
        content=lambda wildcards: plan.finished(wildcards.recipe).digest,
        arguments=lambda wildcards: (
            f'{wildcards.part} --weights "$WEIGHTS_{wildcards.recipe}"'
        ),
    message:
        "Take the {wildcards.part} of {wildcards.recipe} from its bundle"
