# HTML: a page a scan, a page a recipe, one index.


use rule stage as report_scans with:
    input:
        ingest=made("ingest", "{chunk}"),
        preprocess=made("preprocess", "{chunk}"),
        inference=applied("inference", "{chunk}"),
        dataset=applied("dataset", "{chunk}"),
        evaluation=applied("evaluation"),
        atlas=plan.atlas(),
    output:
        made("report", "scans", "{chunk}"),
    log:
        log_of("report_scans", "{chunk}"),
    benchmark:
        benchmark_of("report_scans", "{chunk}")
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        **runs("report_scans", "report_scans"),
    message:
        "Report pages of {wildcards.chunk}"


use rule stage as report_recipe with:
    input:
        stages=stages_of,
        datasets=chunks_of("dataset"),
        from_nothing=from_nothing,
    output:
        report(
            f"{results}/report/{{recipe}}.html",
            caption="../report/recipe.rst",
            category="Recipes",
            labels={"recipe": "{recipe}"},
        ),
    log:
        log_of("report_recipe", "{recipe}"),
    benchmark:
        benchmark_of("report_recipe", "{recipe}")
    wildcard_constraints:
        recipe="|".join(plan.recipes),
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        **runs("report_recipe", "report"),
        arguments=lambda wildcards, input: f"{wildcards.recipe} {flags(wildcards, input)}",
    message:
        "Report page of {wildcards.recipe}"


use rule stage as report_figures with:
    input:
        stages=stages_of,
    output:
        report(
            directory(f"{results}/report/figures/{{recipe}}"),
            patterns=["{stage}/{figure}.{kind}"],
            caption="../report/figure.rst",
            category="Figures of {recipe}",
            subcategory="{stage}",
            labels={"figure": "{figure}", "kind": "{kind}"},
        ),
    log:
        log_of("report_figures", "{recipe}"),
    benchmark:
        benchmark_of("report_figures", "{recipe}")
    wildcard_constraints:
        recipe="|".join(plan.recipes),
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        **runs("report_figures"),
        arguments=lambda wildcards, input: f"{wildcards.recipe} {flags(wildcards, input)}",
    message:
        "Figures of {wildcards.recipe}"


use rule stage as report_index with:
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
        log_of("report_index"),
    benchmark:
        benchmark_of("report_index")
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        **runs("report_index", "report"),
    message:
        "Report index"


use rule stage as report_archive with:
    input:
        index=f"{results}/report/index.html",
        recipes=[f"{results}/report/{recipe}.html" for recipe in plan.recipes],
        scans=[made("report", "scans", chunk) for chunk in plan.chunks()],
    output:
        taken_whole(f"{results}/report/archive"),
    log:
        log_of("report_archive"),
    benchmark:
        benchmark_of("report_archive")
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        **runs("report_archive"),
    message:
        "Pages of the report for one archive"
