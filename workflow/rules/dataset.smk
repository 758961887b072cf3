# What a recipe sees of each scan, packed for memory-mapped reading; a chunk a job.


use rule stage as dataset with:
    input:
        preprocessed=made("preprocess", "{chunk}"),
    output:
        made("{recipe}", "dataset", "{chunk}"),
    log:
        log_of("dataset", "{recipe}", "{chunk}"),
    benchmark:
        benchmark_of("dataset", "{recipe}", "{chunk}")
    # Before trainings, which would keep a core from it for long.
    priority: 10
    params:
        **runs("dataset", "dataset"),
    message:
        "Pack {wildcards.chunk} for {wildcards.recipe}"
