# Failed scans tried again: `snakemake retry_failed`, then `snakemake all`.


rule retry_failed:
    log:
        f"{results}/logs/retry_failed.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        results=results,
    message:
        "Mark the chunks with failed scans to be done again"
    shell:
        'python "$SCRIPTS"/retry_failed.py {params.results:q} 2>&1 | tee {log:q}'
