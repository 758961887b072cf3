# Where does this brain differ from healthy ones?


use rule stage as anomaly_standards with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        train=chunks_of("dataset", "train"),
    output:
        made("{recipe}", "standards"),
    log:
        log_of("anomaly_standards", "{recipe}"),
    benchmark:
        benchmark_of("anomaly_standards", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("anomaly", trained=True),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("anomaly_standards", "standards"),
    message:
        "Scores of healthy training images ({wildcards.recipe})"


use rule stage as infer_anomaly with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        standards=made("{recipe}", "standards"),
        dataset=made("{recipe}", "dataset", "{chunk}"),
    output:
        made("{recipe}", "inference", "{chunk}"),
    log:
        log_of("infer_anomaly", "{recipe}", "{chunk}"),
    benchmark:
        benchmark_of("infer_anomaly", "{recipe}", "{chunk}")
    wildcard_constraints:
        recipe=recipes_of("anomaly"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("infer_anomaly", "inference"),
    message:
        "Anomaly maps of {wildcards.chunk} ({wildcards.recipe})"


use rule stage as native_maps with:
    input:
        inference=made("{recipe}", "inference", "{chunk}"),
        preprocess=made("preprocess", "{chunk}"),
        ingest=made("ingest", "{chunk}"),
    output:
        made("{recipe}", "native", "{chunk}"),
    log:
        log_of("native_maps", "{recipe}", "{chunk}"),
    benchmark:
        benchmark_of("native_maps", "{recipe}", "{chunk}")
    wildcard_constraints:
        recipe=recipes_of("anomaly"),
    params:
        **runs("native_maps"),
    message:
        "Anomaly maps of {wildcards.chunk} in the scans' own space ({wildcards.recipe})"


use rule stage as evaluate_anomaly with:
    input:
        diffusion=made("{recipe}", "diffusion"),
        standards=made("{recipe}", "standards"),
        inference=chunks_of("inference", "validation", "test"),
        datasets=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        log_of("evaluate_anomaly", "{recipe}"),
    benchmark:
        benchmark_of("evaluate_anomaly", "{recipe}")
    wildcard_constraints:
        recipe=recipes_of("anomaly"),
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        **of_task("evaluate_anomaly", "evaluation"),
    message:
        "Evaluate {wildcards.recipe}"
