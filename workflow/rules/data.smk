rule manifest:
    output:
        MANIFEST,
        *([f"{DATA}/scenes.zip"] if BASE.data.source == "scenes" else []),
    log:
        f"{ROOT}/logs/manifest.log",
    conda:
        "../../envs/wsss.yaml"
    params:
        config=keys("manifest"),
        code=code("manifest"),
    shell:
        f"wsss manifest --params {RESOLVED} --log {{log}}"
