rule manifest:
    output:
        MANIFEST,
    log:
        f"{ROOT}/logs/manifest.log",
    params:
        config=keys("manifest"),
        code=code("manifest"),
    shell:
        f"wsss manifest --params {RESOLVED} --log {{log}}"
