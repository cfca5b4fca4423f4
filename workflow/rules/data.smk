# What a source makes besides the manifest: all data, or the masks.
MADE = {"scenes": ["scenes.zip"], "coco": ["masks.zip"]}


rule manifest:
    output:
        MANIFEST,
        *[f"{DATA}/{name}" for name in MADE.get(BASE.data.source, [])],
    log:
        f"{ROOT}/logs/manifest.log",
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads if BASE.data.source == "coco" else 1
    params:
        config=keys("manifest"),
        code=code("manifest"),
    shell:
        f"wsss manifest --params {RESOLVED} --log {{log}}"
