"""The classification network of IRNet, ``res50_cam.pth``.

Source: the published code of Ahn, Cho & Kwak, "Weakly Supervised Learning of Instance
Segmentation with Inter-pixel Relations", CVPR 2019 (jiwoon-ahn/irn): a ResNet-50 in torchvision's
names under ``resnet50``, whose layers are registered a second and third time under
``stage1`` .. ``stage4`` and ``backbone``, with a 1x1 classifier without bias. The last stage has
stride 1 and no dilation. RGB, ImageNet's mean and standard deviation.

The layout is that of the published code; it has not been tried on the published file.
"""

from __future__ import annotations

from wsss.data.voc import CLASSES
from wsss.models.imports.keys import Rule
from wsss.models.imports.layout import Layout

_INTO = r"backbone.network."
_RULES: list[Rule] = [
    (r"resnet50\.((?:conv1|bn1|layer[1-4])\..+)", _INTO + r"\1"),
    (r"(?:stage1|backbone\.0)\.0\.(.+)", _INTO + r"conv1.\1"),
    (r"(?:stage1|backbone\.0)\.1\.(.+)", _INTO + r"bn1.\1"),
    (r"(?:stage1|backbone\.0)\.4\.(.+)", _INTO + r"layer1.\1"),
    (r"stage([2-4])\.0\.(.+)", _INTO + r"layer\1.\2"),
    (r"backbone\.([1-3])\.0\.(.+)", lambda m: f"{_INTO}layer{int(m[1]) + 1}.{m[2]}"),
    (r"(?:classifier|newly_added\.0)\.weight", "classifier.weight"),
]

LAYOUT = Layout(
    title="IRNet's classification network (ResNet-50)",
    source="jiwoon-ahn/irn, net/resnet50_cam.py and step/train_cam.py",
    stage="classify",
    classes=CLASSES,
    background=False,
    settings={
        "method": {"name": "baseline", "params": {}},
        "backbone": {"name": "resnet50"},
        "classify": {"output_stride": 16, "geometry": "undilated"},
    },
    protocol={"cam": {"scales": [1.0, 0.5, 1.5, 2.0], "flip": True, "threshold": 0.15}},
    rules=_RULES,
    by_class=r"classifier\.weight",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
