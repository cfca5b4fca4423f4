if SCORED_HERE:

    localrules:
        evaluate,
        evaluate_tune,
        evaluate_cam,
        evaluate_walk,
        evaluate_walk_cut,
        evaluate_boxes,


rule evaluate:
    input:
        MANIFEST,
        evaluate_input,
    output:
        tables("images"),
    log:
        f"{LOGS}/evaluate_{{what}}.log",
    wildcard_constraints:
        what="crf|pseudo|single|multi|final",
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=lambda wildcards: keys(stage_of(wildcards.what))(wildcards),
        code=lambda wildcards: code(stage_of(wildcards.what))(wildcards),
    shell:
        f"wsss evaluate {{wildcards.what}} {JOB} --log {{log}}"


use rule evaluate as evaluate_tune with:
    output:
        tables("sweep"),
    wildcard_constraints:
        what="cam_tune|walk_tune",
    priority: 1


use rule evaluate as evaluate_cam with:
    output:
        tables("images", "sweep"),
    wildcard_constraints:
        what="cam",


use rule evaluate as evaluate_walk with:
    wildcard_constraints:
        what="walk",
        variant=f"(?!(?:{CUT})/)[^/]+",


use rule evaluate as evaluate_walk_cut with:
    output:
        tables("images", "sweep"),
    wildcard_constraints:
        what="walk",
        variant=CUT,


rule evaluate_boxes:
    input:
        MANIFEST,
        f"{RUN}/cam/maps.zip",
    output:
        f"{RUN}/metrics/boxes.json",
        f"{RUN}/metrics/boxes.classes.csv",
        f"{RUN}/metrics/boxes.sweep.csv",
    log:
        f"{LOGS}/evaluate_boxes.log",
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        config=keys("evaluate_boxes"),
        code=code("evaluate_boxes"),
    shell:
        f"wsss evaluate boxes {JOB} --log {{log}}"


rule compare:
    input:
        compared,
    output:
        report(
            f"{ROOT}/comparison.md",
            caption="../report/comparison.rst",
            category="Comparison",
        ),
        report(
            f"{ROOT}/comparison.csv",
            caption="../report/comparison.rst",
            category="Comparison",
        ),
        [
            f"{ROOT}/{name}/seed{seed}/miou.json"
            for name in BASE.run.variants
            for seed in BASE.run.seeds
        ],
    log:
        f"{ROOT}/logs/compare.log",
    conda:
        "../../envs/wsss.yaml"
    params:
        config=keys("compare"),
        code=code("compare"),
    shell:
        f"wsss compare --params {RESOLVED} --log {{log}} > /dev/null"


rule report:
    input:
        MANIFEST,
        compared,
        drawn,
    output:
        report(
            f"{ROOT}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"{ROOT}/logs/report.log",
    conda:
        "../../envs/wsss.yaml"
    threads: pool_threads
    params:
        described=lambda wildcards: json.dumps(described(PARAMS), sort_keys=True),
        config=keys("report"),
        code=code("report"),
    shell:
        f"wsss report --params {RESOLVED} --log {{log}} > /dev/null"
