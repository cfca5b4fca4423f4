rule classify:
    input:
        MANIFEST,
    output:
        f"{RUN}/classify/weights.safetensors",
        f"{RUN}/classify/curve.csv",
    log:
        f"{LOGS}/classify.log",
    params:
        config=keys("classify"),
        code=code("classify"),
    threads: compute_threads
    resources:
        gpu=gpus,
    conda:
        "../../envs/wsss.yaml"
    shell:
        f"wsss classify {JOB} --log {{log}}"


rule cam:
    input:
        MANIFEST,
        f"{RUN}/classify/weights.safetensors",
    output:
        part("cam", "maps", SHARDS.cam),
    log:
        shard_log("cam", SHARDS.cam),
    params:
        config=keys("cam"),
        code=code("cam"),
    threads: compute_threads
    resources:
        gpu=gpus,
    conda:
        "../../envs/wsss.yaml"
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
