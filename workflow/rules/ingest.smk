# Every file opened, checked, made canonical; a chunk of scans a job, a status row a scan.


rule ingest:
    output:
        made("ingest", "{chunk}"),
    log:
        f"{results}/logs/ingest/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/ingest/{{chunk}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        **whereabouts,
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        rows=lambda wildcards: plan.rows_key(wildcards.chunk),
        options=options("sheet"),
        code=code("ingest"),
    message:
        "Ingest {wildcards.chunk}"
    shell:
        "python workflow/scripts/ingest.py"
        " {wildcards.chunk}"
        " --subjects {resources.subjects:q} --splits {resources.splits:q} --root {resources.root:q}"
        " --rows {params.rows} --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
