# HTML: a page a scan, a page a recipe, one index.


rule report_scans:
    input:
        ingest=made("ingest", "{chunk}"),
        preprocess=made("preprocess", "{chunk}"),
    output:
        made("report", "scans", "{chunk}"),
    log:
        f"{results}/logs/report_scans/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/report_scans/{{chunk}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        options=lambda wildcards: plan.report_options(),
        code=code("report_scans"),
    message:
        "Report pages of {wildcards.chunk}"
    shell:
        "python workflow/scripts/report_scans.py"
        " --ingest {input.ingest} --preprocess {input.preprocess}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule report_recipe:
    input:
        stages_of,
    output:
        report(
            f"{results}/report/{{recipe}}.html",
            caption="../report/recipe.rst",
            category="Recipes",
            labels={"recipe": "{recipe}"},
        ),
    log:
        f"{results}/logs/report_recipe/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/report_recipe/{{recipe}}.tsv"
    wildcard_constraints:
        recipe="|".join(plan.recipes),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        options=lambda wildcards: plan.report_options(wildcards.recipe),
        code=code("report_recipe"),
    message:
        "Report page of {wildcards.recipe}"
    shell:
        "python workflow/scripts/report_recipe.py"
        " {wildcards.recipe} {input}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule report_index:
    input:
        tables=tables,
        checks=f"{results}/cohort/checks.json",
        scans=[made("report", "scans", chunk) for chunk in plan.chunks()],
        recipes=[f"{results}/report/{recipe}.html" for recipe in plan.recipes],
    output:
        report(
            f"{results}/report/index.html",
            caption="../report/index.rst",
            category="Cohort",
            labels={"page": "index"},
        ),
    log:
        f"{results}/logs/report_index.log",
    benchmark:
        f"{results}/benchmarks/report_index.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        options=lambda wildcards: plan.report_options(),
        code=code("report_index"),
    message:
        "Report index"
    shell:
        "python workflow/scripts/report_index.py"
        " --tables {input.tables} --checks {input.checks} --scans {input.scans} --recipes {input.recipes}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
