# What the rules of all stages share.


# Inherited by `use rule stage as ... with`; does nothing by itself.
rule stage:
    log:
        log_of("stage"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        script="",
        launch="",
        arguments=flags,
        options="{}",
        code="",
    shell:
        '{params.launch} python "$SCRIPTS"/{params.script}.py'
        " {params.arguments}"
        " --options {params.options:q} --code {params.code}"
        " --out {output:q} --log {log:q} --threads {threads}"
