# What a recipe sees of each scan, packed for memory-mapped reading; a chunk a job.


rule dataset:
    input:
        made("preprocess", "{chunk}"),
    output:
        made("{recipe}", "dataset", "{chunk}"),
    log:
        f"{results}/logs/dataset/{{recipe}}/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/dataset/{{recipe}}/{{chunk}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        options=options("dataset"),
        code=code("dataset"),
    message:
        "Pack {wildcards.chunk} for {wildcards.recipe}"
    shell:
        "python workflow/scripts/dataset.py"
        " {input}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
