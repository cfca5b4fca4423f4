rule manifest:
    output:
        MANIFEST,
        *([f"{DATA}/scenes.zip"] if BASE.data.source == "scenes" else []),
    log:
        f"{ROOT}/logs/manifest.log",
    params:
        config=keys("manifest"),
        code=code("manifest"),
    conda:
        "../../envs/wsss.yaml"
    shell:
        f"wsss manifest --params {RESOLVED} --log {{log}}"
