# The denoiser of a recipe, trained on images or on latents.


rule train_denoiser:
    input:
        gate=gate,
        train=training_data("train"),
        validation=training_data("validation"),
        autoencoders=autoencoders,
    output:
        made("{recipe}", "diffusion"),
    log:
        f"{results}/logs/train_denoiser/{{recipe}}.log",
    benchmark:
        f"{results}/benchmarks/train_denoiser/{{recipe}}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 2
    resources:
        licence=plan.config.cohort.licence,
        settings=settings("denoiser"),
        launch=launch("denoiser"),
        mem_mb=growing(8000),
        runtime=growing(1440),
    params:
        options=options("denoiser"),
        code=code("train_denoiser"),
    message:
        "Train the denoiser of {wildcards.recipe}"
    shell:
        "{resources.launch} python workflow/scripts/train_denoiser.py"
        " --recipe {wildcards.recipe} --state state"
        " --train {input.train} --validation {input.validation} --autoencoders {input.autoencoders}"
        " --options {params.options:q} --code {params.code}"
        " --settings {resources.settings:q} --licence {resources.licence:q}"
        " --out {output} --log {log} --threads {threads}"
