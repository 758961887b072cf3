# Every file opened, checked, made canonical; a chunk of scans a job, a status row a scan.


use rule stage as ingest with:
    output:
        made("ingest", "{chunk}"),
    log:
        log_of("ingest", "{chunk}"),
    benchmark:
        benchmark_of("ingest", "{chunk}")
    threads: 2
    params:
        **runs("ingest", "sheet"),
        arguments=lambda wildcards: (
            f"{wildcards.chunk} --rows {plan.rows_key(wildcards.chunk)}"
            ' --subjects "$SUBJECTS" --splits "$SPLITS" --root "$ROOT" --ratings "$RATINGS"'
        ),
    message:
        "Ingest {wildcards.chunk}"
