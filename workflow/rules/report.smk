def evaluate_input(wildcards):
    """The scored artifact and, for CAMs with a tuned threshold, the result of tuning."""
    evaluation = EVALUATIONS[wildcards.what]
    run = RUN.format(**{k: v for k, v in wildcards.items() if k != "what"})
    files = [f"{run}/{evaluation.stage}/{evaluation.store}.zip"]
    if wildcards.what == "cam" and variant_of(wildcards).cam.threshold == "tune":
        files.append(f"{run}/metrics/cam_tune.json")
    return files


def compared(wildcards):
    """Metrics of every variant and seed."""
    return [
        f"{RUN.format(dataset=wildcards.dataset, variant=name, seed=seed)}/metrics/{what}.json"
        for name in BASE.run.variants
        for seed in BASE.run.seeds
        for what in wanted(PARAMS.resolve(name))
    ]


rule evaluate:
    input:
        MANIFEST,
        evaluate_input,
    output:
        f"{RUN}/metrics/{{what}}.json",
        f"{RUN}/metrics/{{what}}.classes.csv",
        f"{RUN}/metrics/{{what}}.confusion.csv",
    log:
        f"{LOGS}/evaluate_{{what}}.log",
    params:
        config=lambda wildcards: keys(stage_of(wildcards.what))(wildcards),
        code=lambda wildcards: code(stage_of(wildcards.what))(wildcards),
    wildcard_constraints:
        what="|".join(EVALUATIONS),
    threads: pool_threads
    shell:
        f"wsss evaluate {{wildcards.what}} {JOB} --log {{log}}"


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
    log:
        f"{ROOT}/logs/compare.log",
    params:
        variants=BASE.run.variants,
        seeds=BASE.run.seeds,
        code=code("compare"),
    shell:
        f"wsss compare --params {RESOLVED} --log {{log}} > /dev/null"
