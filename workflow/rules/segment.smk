rule segment:
    input:
        MANIFEST,
        segment_input,
    output:
        f"{RUN}/segment/weights.safetensors",
        f"{RUN}/segment/curve.csv",
    log:
        f"{LOGS}/segment.log",
    conda:
        "../../envs/wsss.yaml"
    threads: training_threads("segment")
    resources:
        **training_resources("segment"),
    params:
        start=start("segment"),
        config=keys("segment"),
        code=code("segment"),
    shell:
        f"{{params.start}}wsss segment {JOB} --log {{log}}"


rule predict:
    input:
        MANIFEST,
        predict_input,
    output:
        part("predict", "scores", SHARDS.predict),
        part("predict", "single", SHARDS.predict),
    log:
        shard_log("predict", SHARDS.predict),
    conda:
        "../../envs/wsss.yaml"
    threads: compute_threads
    resources:
        gpu=gpus,
    params:
        config=keys("predict"),
        code=code("predict"),
    shell:
        f"wsss predict {JOB} {shard_option(SHARDS.predict)} --log {{log}}"


if SHARDS.predict > 1:

    rule merge_predict:
        input:
            parts("predict", "{name}", SHARDS.predict),
        output:
            f"{RUN}/predict/{{name}}.zip",
        log:
            f"{LOGS}/merge_predict_{{name}}.log",
        wildcard_constraints:
            name="scores|single",
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"


rule crf:
    input:
        MANIFEST,
        f"{RUN}/predict/scores.zip",
    output:
        part("predict", "masks", SHARDS.crf),
    log:
        shard_log("crf", SHARDS.crf),
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("crf"),
        code=code("crf"),
    shell:
        f"wsss crf {JOB} {shard_option(SHARDS.crf)} --log {{log}}"


if SHARDS.crf > 1:

    rule merge_crf:
        input:
            parts("predict", "masks", SHARDS.crf),
        output:
            f"{RUN}/predict/masks.zip",
        log:
            f"{LOGS}/merge_crf.log",
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"
