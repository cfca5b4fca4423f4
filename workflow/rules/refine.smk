rule seeds_alpha:
    input:
        MANIFEST,
        made("cam", "maps.zip"),
    output:
        part("seeds", "low", SHARDS.seeds),
        part("seeds", "high", SHARDS.seeds),
    log:
        shard_log("seeds_alpha", SHARDS.seeds),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("seeds_alpha"),
        code=code("seeds_alpha"),
    shell:
        f"wsss seeds alpha {JOB} {shard_option(SHARDS.seeds)} --log {{log}}"


rule seeds_label:
    input:
        MANIFEST,
        label_seed_input,
    output:
        part("seeds", "crf", SHARDS.seeds),
    log:
        shard_log("seeds_label", SHARDS.seeds),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("seeds_label"),
        code=code("seeds_label"),
    shell:
        f"wsss seeds label {JOB} {shard_option(SHARDS.seeds)} --log {{log}}"


rule seeds_confident:
    input:
        MANIFEST,
        made("cam", "maps.zip"),
    output:
        part("seeds", "confident", SHARDS.seeds),
    log:
        shard_log("seeds_confident", SHARDS.seeds),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("seeds_confident"),
        code=code("seeds_confident"),
    shell:
        f"wsss seeds confident {JOB} {shard_option(SHARDS.seeds)} --log {{log}}"


if SHARDS.seeds > 1:

    rule merge_seeds:
        input:
            parts("seeds", "{name}", SHARDS.seeds),
        output:
            f"{RUN}/seeds/{{name}}.zip",
        log:
            f"{LOGS}/merge_seeds_{{name}}.log",
        wildcard_constraints:
            name="low|high|confident|crf",
        priority: 1
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"


rule affinity:
    input:
        MANIFEST,
        made("seeds", "low.zip", "high.zip"),
    output:
        f"{RUN}/affinity/weights.safetensors",
        f"{RUN}/affinity/curve.csv",
    log:
        f"{LOGS}/affinity.log",
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: training_threads("affinity")
    resources:
        **training_resources("affinity"),
    params:
        start=start("affinity"),
        config=keys("affinity"),
        code=code("affinity"),
    shell:
        f"{{params.start}}wsss affinity {JOB} --log {{log}}"


rule irnet:
    input:
        MANIFEST,
        made("seeds", "confident.zip"),
    output:
        f"{RUN}/irnet/weights.safetensors",
        f"{RUN}/irnet/curve.csv",
    log:
        f"{LOGS}/irnet.log",
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: training_threads("irnet")
    resources:
        **training_resources("irnet"),
    params:
        start=start("irnet"),
        config=keys("irnet"),
        code=code("irnet"),
    shell:
        f"{{params.start}}wsss irnet {JOB} --log {{log}}"


rule edges:
    input:
        MANIFEST,
        made("irnet", "weights.safetensors"),
    output:
        part("irnet", "edges", SHARDS.walk),
    log:
        shard_log("edges", SHARDS.walk),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: compute_threads
    resources:
        gpu=gpus,
    params:
        config=keys("edges"),
        code=code("edges"),
    shell:
        f"wsss edges {JOB} {shard_option(SHARDS.walk)} --log {{log}}"


if SHARDS.walk > 1:

    rule merge_edges:
        input:
            parts("irnet", "edges", SHARDS.walk),
        output:
            f"{RUN}/irnet/edges.zip",
        log:
            f"{LOGS}/merge_edges.log",
        priority: 1
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"


rule walk:
    input:
        MANIFEST,
        walk_input,
    output:
        part("walk", "scores", SHARDS.walk),
    log:
        shard_log("walk", SHARDS.walk),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: compute_threads
    resources:
        gpu=gpus,
    params:
        config=keys("walk"),
        code=code("walk"),
    shell:
        f"wsss walk {JOB} {shard_option(SHARDS.walk)} --log {{log}}"


if SHARDS.walk > 1:

    rule merge_walk:
        input:
            parts("walk", "scores", SHARDS.walk),
        output:
            f"{RUN}/walk/scores.zip",
        log:
            f"{LOGS}/merge_walk.log",
        priority: 1
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"


rule pseudo:
    input:
        MANIFEST,
        pseudo_input,
    output:
        f"{RUN}/pseudo/masks.zip",
    log:
        f"{LOGS}/pseudo.log",
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("pseudo"),
        code=code("pseudo"),
    shell:
        f"wsss pseudo {JOB} --log {{log}}"


rule soft:
    input:
        MANIFEST,
        soft_input,
    output:
        f"{RUN}/pseudo/scores.zip",
    log:
        f"{LOGS}/soft.log",
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("soft"),
        code=code("soft"),
    shell:
        f"wsss soft {JOB} --log {{log}}"
