# From images with tags to a segmentation network and its score, for every variant and seed.
#
#   snakemake --cores all                                                     the demo
#   snakemake --cores all --configfile workflow/presets/voc.yaml              your own VOC


configfile: "params.yaml"


include: "workflow/rules/common.smk"


# Seconds each, too short to queue for on a cluster; see workflow/profiles/slurm. So are evaluations,
# mostly: workflow/rules/report.smk.
localrules:
    all,
    compare,
    report,
    merge_cam,
    merge_seeds,
    merge_edges,
    merge_walk,
    merge_predict,
    merge_crf,


rule all:
    default_target: True
    input:
        targets(),


include: "workflow/rules/data.smk"
include: "workflow/rules/cam.smk"
include: "workflow/rules/refine.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/report.smk"


onstart:
    # Jobs read one file with everything that was laid over params.yaml.
    write_params()
    mend_slurm_plugin(getattr(workflow.executor_settings, "requeue", False))


onsuccess:
    publish()


onerror:
    publish()
