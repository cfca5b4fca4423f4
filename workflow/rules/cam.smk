rule classify:
    input:
        MANIFEST,
        classify_input,
    output:
        f"{RUN}/classify/weights.safetensors",
        f"{RUN}/classify/curve.csv",
    log:
        f"{LOGS}/classify.log",
    # What most waits for comes first, up to a network's training.
    priority: 2
    conda:
        "../../envs/wsss.yaml"
    threads: training_threads("classify")
    resources:
        **training_resources("classify"),
    params:
        start=start("classify"),
        config=keys("classify"),
        code=code("classify"),
    shell:
        f"{{params.start}}wsss classify {JOB} --log {{log}}"


rule cam:
    input:
        MANIFEST,
        made("classify", "weights.safetensors"),
    output:
        part("cam", "maps", SHARDS.cam),
    log:
        shard_log("cam", SHARDS.cam),
    priority: 1
    conda:
        "../../envs/wsss.yaml"
    threads: compute_threads
    resources:
        gpu=gpus,
    params:
        config=keys("cam"),
        code=code("cam"),
    shell:
        f"wsss cam {JOB} {shard_option(SHARDS.cam)} --log {{log}}"


if SHARDS.cam > 1:

    rule merge_cam:
        input:
            parts("cam", "maps", SHARDS.cam),
        output:
            f"{RUN}/cam/maps.zip",
        log:
            f"{LOGS}/merge_cam.log",
        conda:
            "../../envs/wsss.yaml"
        shell:
            "wsss merge {output} {input} 2> {log}"
