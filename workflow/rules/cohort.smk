# Who is in and who is out, and why; the split checked for leakage and balance.


rule cohort_split:
    input:
        lambda wildcards: [
            made("preprocess", chunk)
            for chunk in plan.chunks_in(wildcards.split, wildcards.family)
        ],
    output:
        f"{results}/cohort/{{split}}-{{family}}.tsv",
    log:
        f"{results}/logs/cohort/{{split}}-{{family}}.log",
    benchmark:
        f"{results}/benchmarks/cohort/{{split}}-{{family}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        options=options("cohort_limits"),
        code=code("cohort_split"),
    message:
        "Who is in the {wildcards.split} split ({wildcards.family})"
    shell:
        "python workflow/scripts/cohort_split.py"
        " {wildcards.split} {input}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule cohort:
    input:
        tables,
    output:
        f"{results}/cohort/checks.json",
    log:
        f"{results}/logs/cohort/checks.log",
    benchmark:
        f"{results}/benchmarks/cohort/checks.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        **whereabouts,
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        sheet=plan.sheet_key(),
        options=options("sheet"),
        code=code("cohort"),
    message:
        "Check the cohort for duplicates, leakage and balance"
    shell:
        "python workflow/scripts/cohort.py"
        " {input}"
        " --subjects {resources.subjects:q} --root {resources.root:q}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
