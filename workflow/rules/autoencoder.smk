# The autoencoder of a recipe: a KL autoencoder, or VQGANs of source and target.


rule train_vae:
    input:
        gate=gate,
        train=chunks_of("dataset", "train"),
        validation=chunks_of("dataset", "validation"),
    output:
        made("{recipe}", "autoencoder", "{role}"),
    log:
        f"{results}/logs/train_vae/{{recipe}}-{{role}}.log",
    benchmark:
        f"{results}/benchmarks/train_vae/{{recipe}}-{{role}}.tsv"
    wildcard_constraints:
        recipe=with_autoencoder("vae"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        licence=plan.config.cohort.licence,
        settings=settings("autoencoder"),
        launch=launch("autoencoder"),
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        options=options("autoencoder"),
        code=code("train_vae"),
    message:
        "Train the VAE of {wildcards.recipe} ({wildcards.role})"
    shell:
        "{resources.launch} python workflow/scripts/train_vae.py"
        " --recipe {wildcards.recipe} --role {wildcards.role} --state state"
        " --train {input.train} --validation {input.validation}"
        " --options {params.options:q} --code {params.code}"
        " --settings {resources.settings:q} --licence {resources.licence:q}"
        " --out {output} --log {log} --threads {threads}"


rule train_vqgan:
    input:
        gate=gate,
        train=chunks_of("dataset", "train"),
        validation=chunks_of("dataset", "validation"),
    output:
        made("{recipe}", "autoencoder", "{role}"),
    log:
        f"{results}/logs/train_vqgan/{{recipe}}-{{role}}.log",
    benchmark:
        f"{results}/benchmarks/train_vqgan/{{recipe}}-{{role}}.tsv"
    wildcard_constraints:
        recipe=with_autoencoder("vqgan"),
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        licence=plan.config.cohort.licence,
        settings=settings("autoencoder"),
        launch=launch("autoencoder"),
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        options=options("autoencoder"),
        code=code("train_vqgan"),
    message:
        "Train the VQGAN of {wildcards.recipe} ({wildcards.role})"
    shell:
        "{resources.launch} python workflow/scripts/train_vqgan.py"
        " --recipe {wildcards.recipe} --role {wildcards.role} --state state"
        " --train {input.train} --validation {input.validation}"
        " --options {params.options:q} --code {params.code}"
        " --settings {resources.settings:q} --licence {resources.licence:q}"
        " --out {output} --log {log} --threads {threads}"
