# Figures with confidence intervals, per subject and per group, a baseline beside each.


rule evaluate_anomaly:
    input:
        diffusion=made("{recipe}", "diffusion"),
        inference=chunks_of("inference", "validation", "test"),
        datasets=chunks_of("dataset", "validation", "test"),
        train=chunks_of("dataset", "train"),
    output:
        made("{recipe}", "evaluation"),
    log:
        f"{results}/logs/evaluate_anomaly/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/evaluate_anomaly/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("anomaly"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("evaluation"),
        code=code("evaluate_anomaly"),
    message:
        "Evaluate {wildcards.recipe}"
    shell:
        "python workflow/scripts/evaluate_anomaly.py"
        " --diffusion {input.diffusion}"
        " --inference {input.inference} --datasets {input.datasets} --train {input.train}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule evaluate_generation:
    input:
        diffusion=made("{recipe}", "diffusion"),
        samples=made("{recipe}", "samples"),
        train=chunks_of("dataset", "train"),
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        f"{results}/logs/evaluate_generation/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/evaluate_generation/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("generation"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("evaluation"),
        code=code("evaluate_generation"),
    message:
        "Evaluate {wildcards.recipe}"
    shell:
        "python workflow/scripts/evaluate_generation.py"
        " --diffusion {input.diffusion}"
        " --samples {input.samples} --train {input.train} --held-out {input.held_out}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule evaluate_synthesis:
    input:
        diffusion=made("{recipe}", "diffusion"),
        samples=made("{recipe}", "samples"),
        train=chunks_of("dataset", "train"),
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        f"{results}/logs/evaluate_synthesis/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/evaluate_synthesis/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("evaluation"),
        code=code("evaluate_synthesis"),
    message:
        "Evaluate {wildcards.recipe}"
    shell:
        "python workflow/scripts/evaluate_synthesis.py"
        " --diffusion {input.diffusion}"
        " --samples {input.samples} --train {input.train} --held-out {input.held_out}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule evaluate_translation:
    input:
        diffusion=made("{recipe}", "diffusion"),
        inference=chunks_of("inference", "validation", "test"),
        datasets=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "evaluation"),
    log:
        f"{results}/logs/evaluate_translation/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/evaluate_translation/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("translation"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("evaluation"),
        code=code("evaluate_translation"),
    message:
        "Evaluate {wildcards.recipe}"
    shell:
        "python workflow/scripts/evaluate_translation.py"
        " --diffusion {input.diffusion}"
        " --inference {input.inference} --datasets {input.datasets}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
