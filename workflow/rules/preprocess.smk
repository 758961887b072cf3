# Brain extraction, bias field, common space, intensity, quality; a chunk of scans a job.


rule preprocess:
    input:
        made("ingest", "{chunk}"),
    output:
        made("preprocess", "{chunk}"),
    log:
        f"{results}/logs/preprocess/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/preprocess/{{chunk}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
    params:
        options=options("preprocess"),
        code=code("preprocess"),
    message:
        "Preprocess {wildcards.chunk}"
    shell:
        "python workflow/scripts/preprocess.py"
        " {input}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
