"""PPC: SEAM, and a contrast of its cells with prototypes of the classes of the batch.

Source: Du, Fu, Liu & Wang, "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype
Contrast", CVPR 2022, section 3, and its official code, which the constants are from; the rest is
SEAM's, see ``wsss/methods/seam.py``.

- A projection of the last features is contrasted on the grid of the second view. The prototype of
  a class is the mean of the cells of the whole batch where its refined map is highest, weighted
  by it; the pseudo label of a cell is the best present class.
- Cross-view contrast: prototypes of the other view, and pseudo labels of the other view.
- Intra-view contrast: prototypes and labels of the view itself, against semi-hard prototypes, over
  hard and random cells.

Deviations: those of SEAM, and

- Random cells are drawn by (sample, view, cell), not by a global generator.
- The projection reads the features after dropout, as the classifier does.
- Where released code and intention differ, the intention is the default elsewhere in this system.
  Two rules are kept as an exception, since every prototype and with it the published numbers rest
  on them: the background prototype is the mean of arbitrary cells (``background_cells: lowest`` for
  what was meant), and prototypes of absent classes are negatives (``absent_negatives: false``).
  RTC, which takes this contrast over, keeps the same two.
- A cell's own prototype is none of its negatives; the official code ranks it among them
  (``own_ranked: true``).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from wsss.config.schema import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveFraction,
)
from wsss.data.training import Batch
from wsss.distributed.collectives import gathered, gathered_fields
from wsss.losses.prototype_mining import Mining, mined_contrast
from wsss.losses.prototypes import (
    Cells,
    cells_of,
    classes_present,
    prototype_contrast,
    prototypes,
    ranked_scores,
    select_cells,
)
from wsss.losses.siamese import View
from wsss.methods.base import MethodInfo, MethodParams
from wsss.methods.seam import Seam, SeamParams
from wsss.models.backbones import Backbone
from wsss.randomness import keyed_uniform, keys_of_pass

# Stream of the random cells, apart from those of dropout.
_CELLS = 1000


class PpcParams(SeamParams):
    """Constants of PPC, on top of SEAM's; all from the official code.

    A weight of 0 leaves the term out.
    """

    view_size: Annotated[int, Field(ge=16)] = 128  # px of the second view; 2/7 of the crop of 448
    projection: Count = 128  # channels of the contrasted features
    temperature: Positive = 0.1  # of all contrasts
    background: PositiveFraction = 0.2  # score of the background in the contrast
    prototype_share: PositiveFraction = 0.125  # cells a class, of those of one view's map
    cross_prototype_weight: NonNegative = 0.1  # contrast with the other view's prototypes
    cross_label_weight: NonNegative = 0.1  # contrast by the other view's labels
    intra_weight: NonNegative = 0.1  # contrast within a view
    negative_first: Count = 4  # ranks of the semi-hard prototypes, of 21
    negative_last: Count = 13  # the last of them
    own_ranked: bool = False  # true: a cell's own prototype has a rank, too (official code)
    hard_from: BelowOne = 0.1  # of a class's cells, too hard ones
    hard_share: Fraction = 0.5  # the next hardest
    random_share: Fraction = 0.5  # random ones beside these
    background_cells: Literal["constant", "lowest"] = "constant"  # official code; lowest: as meant
    absent_negatives: bool = True  # official code; false: as meant

    @model_validator(mode="after")
    def _ranks(self) -> PpcParams:
        if self.negative_first > self.negative_last:
            raise ValueError(
                f"negative_first {self.negative_first} exceeds negative_last {self.negative_last}"
            )
        return self

    @property
    def mining(self) -> Mining:
        """What counts in the intra-view contrast."""
        ranks = (self.negative_first, self.negative_last, self.own_ranked)
        return Mining(*ranks, self.hard_from, self.hard_share, self.random_share)


class Ppc(Seam):
    """SEAM with a projection whose cells are contrasted with class prototypes."""

    info = MethodInfo(
        title="PPC",
        paper="Du et al., Weakly Supervised Semantic Segmentation by Pixel-to-Prototype Contrast, "
        "CVPR 2022",
        status="faithful",
        roads=("two-stage",),
        expected={
            "VOC train, CAM": "61.5 (WR38, official repository)",
            "VOC train, pseudo masks": "69.2 (AffinityNet, official repository)",
            "VOC val": "67.7 (DeepLabV1 on WR38, paper)",
            "VOC test": "67.4 (DeepLabV1 on WR38, paper)",
        },
        deviations=(
            *Seam.info.deviations,
            "random cells by (sample, view, cell)",
            "the projection reads the features after dropout",
            "a cell's own prototype is none of its negatives; own_ranked: true for the official",
        ),
        terms={
            **Seam.info.terms,
            "nce_cross_prototype": "contrast with the prototypes of the other view",
            "nce_cross_label": "contrast by the pseudo labels of the other view",
            "nce_intra": "contrast within a view: semi-hard prototypes, hard and random cells",
        },
    )
    Params: ClassVar[type[MethodParams]] = PpcParams
    couples_batch = True
    params: PpcParams

    def __init__(
        self, backbone: Backbone, num_classes: int, params: PpcParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        self.project = nn.Conv2d(backbone.channels[-1], params.projection, 1, bias=False)
        nn.init.xavier_uniform_(self.project.weight)

    def activate(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the projected features (B, D, h, w) and the raw CAM (B, C, h, w), float32."""
        features, cam = super().activate(levels)
        return self.project(features).relu(), cam

    def _terms(self, one: View, two: View, batch: Batch) -> dict[str, Tensor]:
        return {**super()._terms(one, two, batch), **self._contrasts(one, two, batch)}

    def _contrasts(self, one: View, two: View, batch: Batch) -> dict[str, Tensor]:
        """Contrasts of the global batch: prototypes and the ranks of cells are of all images."""
        p, label = self.params, batch["label"].float()
        grid = (two.features.shape[2], two.features.shape[3])
        own = [cells_of(v.refined, v.features, grid, label, p.background) for v in (one, two)]
        cells = [gathered_fields(view) for view in own]
        label, keys = gathered(label), gathered(batch["key"])
        count = max(1, int(grid[0] * grid[1] * p.prototype_share))
        ranked = [ranked_scores(view.scores, label, p.background_cells) for view in cells]
        centres = [
            prototypes(select_cells(scores, view.features, count))
            for scores, view in zip(ranked, cells, strict=True)
        ]
        labels = [view.labels for view in cells]
        present = None if p.absent_negatives else classes_present(label)

        def crossed(weight: float, protos: list[Tensor], pseudo: list[Tensor]) -> Tensor:
            parts = [
                prototype_contrast(view.features, given, which, p.temperature, present)
                for view, given, which in zip(cells, protos, pseudo, strict=True)
            ]
            return weight * (parts[0] + parts[1]) / 2

        terms = {}
        if p.cross_prototype_weight:
            terms["nce_cross_prototype"] = crossed(p.cross_prototype_weight, centres[::-1], labels)
        if p.cross_label_weight:
            terms["nce_cross_label"] = crossed(p.cross_label_weight, centres, labels[::-1])
        if p.intra_weight:
            terms["nce_intra"] = p.intra_weight * self._intra(cells, centres, keys, present)
        return terms

    def _intra(
        self, cells: list[Cells], centres: list[Tensor], keys: Tensor, present: Tensor | None
    ) -> Tensor:
        """The mean of both views' contrasts with mining."""
        p, parts = self.params, []
        for number, (view, protos) in enumerate(zip(cells, centres, strict=True)):
            drawn = keyed_uniform(keys_of_pass(keys, number), _CELLS, view.labels[0].numel())
            draws = drawn.view(view.labels.shape)
            given = (view.features, protos, view.labels, draws)
            parts.append(mined_contrast(*given, p.mining, p.temperature, present))
        return torch.stack(parts).mean()


METHOD = Ppc
