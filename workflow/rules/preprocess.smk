# Brain extraction, bias field, common space, intensity, quality; a chunk of scans a job.


use rule stage as preprocess with:
    input:
        ingested=made("ingest", "{chunk}"),
    output:
        made("preprocess", "{chunk}"),
    log:
        log_of("preprocess", "{chunk}"),
    benchmark:
        benchmark_of("preprocess", "{chunk}")
    # Before trainings, which would keep a core from it for long.
    priority: 20
    threads: 2
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
    params:
        **runs("preprocess", "preprocess"),
    message:
        "Preprocess {wildcards.chunk}"
