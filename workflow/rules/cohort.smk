# Who is in and who is out, and why; the split checked for leakage and balance.


use rule stage as cohort_split with:
    input:
        chunks=lambda wildcards: [
            made("preprocess", chunk)
            for chunk in plan.chunks_in(wildcards.split, wildcards.family)
        ],
    output:
        f"{results}/cohort/{{split}}-{{family}}.tsv",
    log:
        log_of("cohort", "{split}-{family}"),
    benchmark:
        benchmark_of("cohort", "{split}-{family}")
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        **runs("cohort_split", "cohort_limits"),
        arguments=lambda wildcards, input: f"{wildcards.split} {flags(wildcards, input)}",
    message:
        "Who is in the {wildcards.split} split ({wildcards.family})"


use rule stage as cohort with:
    input:
        tables=tables,
    output:
        f"{results}/cohort/checks.json",
    log:
        log_of("cohort", "checks"),
    benchmark:
        benchmark_of("cohort", "checks")
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        **runs("cohort", "sheet"),
        arguments=lambda wildcards, input: f'{flags(wildcards, input)} --subjects "$SUBJECTS" --root "$ROOT" --ratings "$RATINGS"',
        sheet=plan.sheet_key(),
    message:
        "Check the cohort for duplicates, leakage and balance"
