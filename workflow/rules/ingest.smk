# Every file opened, checked, made canonical; a chunk of scans a job, a status row a scan.


use rule stage as ingest with:
    output:
        made("ingest", "{chunk}"),
    log:
        log_of("ingest", "{chunk}"),
    benchmark:
        benchmark_of("ingest", "{chunk}")
    # Before trainings, which would keep a core from it for long.
    priority: 20
    threads: 2
    params:
        **runs("ingest"),
        arguments=lambda wildcards: (
            f"{rows_of(results, wildcards.chunk)} --key {plan.rows_key(wildcards.chunk)}"
            ' --root "$ROOT"'
        ),
    message:
        "Ingest {wildcards.chunk}"
