# The autoencoder of a recipe: a KL autoencoder, or VQGANs of source and target.


use rule stage as train_vae with:
    input:
        gate,
        train=chunks_of("dataset", "train"),
        validation=chunks_of("dataset", "validation"),
    output:
        made("{recipe}", "autoencoder", "{role}"),
    log:
        log_of("train_vae", "{recipe}-{role}"),
    benchmark:
        benchmark_of("train_vae", "{recipe}-{role}")
    wildcard_constraints:
        recipe=with_autoencoder("vae"),
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        **runs("train_vae", "autoencoder"),
        **trains("autoencoder"),
    message:
        "Train the VAE of {wildcards.recipe} ({wildcards.role})"


use rule train_vae as train_vqgan with:
    log:
        log_of("train_vqgan", "{recipe}-{role}"),
    benchmark:
        benchmark_of("train_vqgan", "{recipe}-{role}")
    wildcard_constraints:
        recipe=with_autoencoder("vqgan"),
    params:
        **runs("train_vqgan", "autoencoder"),
    message:
        "Train the VQGAN of {wildcards.recipe} ({wildcards.role})"
