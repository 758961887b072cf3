# What a trained recipe is used for: anomaly maps, samples, embedding, translations.


rule infer_anomaly:
    input:
        diffusion=made("{recipe}", "diffusion"),
        dataset=made("{recipe}", "dataset", "{chunk}"),
    output:
        made("{recipe}", "inference", "{chunk}"),
    log:
        f"{results}/logs/infer_anomaly/{{recipe}}/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/infer_anomaly/{{recipe}}/{{chunk}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("anomaly"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("inference"),
        code=code("infer_anomaly"),
    message:
        "Anomaly maps of {wildcards.chunk} ({wildcards.recipe})"
    shell:
        "python workflow/scripts/infer_anomaly.py"
        " --diffusion {input.diffusion} --dataset {input.dataset}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule sample_generation:
    input:
        diffusion=made("{recipe}", "diffusion"),
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "samples"),
    log:
        f"{results}/logs/sample_generation/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/sample_generation/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("generation"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        options=options("inference"),
        code=code("sample_generation"),
    message:
        "Sample {wildcards.recipe} at every checkpoint"
    shell:
        "python workflow/scripts/sample_generation.py"
        " --diffusion {input.diffusion} --held-out {input.held_out}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule sample_synthesis:
    input:
        diffusion=made("{recipe}", "diffusion"),
        autoencoders=autoencoders,
        held_out=chunks_of("dataset", "validation", "test"),
    output:
        made("{recipe}", "samples"),
    log:
        f"{results}/logs/sample_synthesis/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/sample_synthesis/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        options=options("inference"),
        code=code("sample_synthesis"),
    message:
        "Sample {wildcards.recipe} under every condition"
    shell:
        "python workflow/scripts/sample_synthesis.py"
        " --diffusion {input.diffusion} --held-out {input.held_out} --autoencoder {input.autoencoders}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule embed:
    input:
        autoencoders=autoencoders,
        latents=chunks_of("latents"),
        samples=made("{recipe}", "samples"),
    output:
        made("{recipe}", "embedding"),
    log:
        f"{results}/logs/embed/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/embed/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("synthesis"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=options("inference"),
        code=code("embed"),
    message:
        "Embed the latents of {wildcards.recipe}"
    shell:
        "python workflow/scripts/embed.py"
        " --autoencoder {input.autoencoders} --latents {input.latents} --samples {input.samples}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule fit_floor:
    input:
        train=chunks_of("dataset", "train"),
    output:
        made("{recipe}", "floor"),
    log:
        f"{results}/logs/fit_floor/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/fit_floor/{{recipe}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("translation"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        options=options("inference"),
        code=code("fit_floor"),
    message:
        "Fit the interpolation baseline of {wildcards.recipe}"
    shell:
        "python workflow/scripts/fit_floor.py"
        " --train {input.train}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"


rule infer_translation:
    input:
        diffusion=made("{recipe}", "diffusion"),
        autoencoders=autoencoders,
        floor=made("{recipe}", "floor"),
        dataset=made("{recipe}", "dataset", "{chunk}"),
        latents=made("{recipe}", "latents", "{chunk}"),
    output:
        made("{recipe}", "inference", "{chunk}"),
    log:
        f"{results}/logs/infer_translation/{{recipe}}/{{chunk}}.log",
    benchmark:
        f"{results}/benchmarks/infer_translation/{{recipe}}/{{chunk}}.tsv"
    wildcard_constraints:
        recipe=recipes_of("translation"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        options=options("inference"),
        code=code("infer_translation"),
    message:
        "Translate {wildcards.chunk} ({wildcards.recipe})"
    shell:
        "python workflow/scripts/infer_translation.py"
        " --diffusion {input.diffusion} --autoencoders {input.autoencoders} --floor {input.floor}"
        " --dataset {input.dataset} --latents {input.latents}"
        " --options {params.options:q} --code {params.code}"
        " --out {output} --log {log} --threads {threads}"
