# Images encoded once; mean and standard deviation kept.


rule latents:
    input:
        dataset=made("{recipe}", "dataset", "{chunk}"),
        autoencoders=autoencoders,
    output:
        made("{recipe}", "latents", "{chunk}"),
    log:
        f"{results}/logs/latents/{{recipe}}/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/latents/{{recipe}}/{{chunk}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options="{}",
        code=code("latents"),
    message:
        "Encode {wildcards.chunk} for {wildcards.recipe}"
    shell:
        "python workflow/scripts/latents.py"
        " --dataset {input.dataset} --autoencoders {input.autoencoders}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
