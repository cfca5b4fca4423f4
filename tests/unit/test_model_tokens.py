"""Token encoders: what a key mask hides is read nowhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.config.schema import Backbone as BackboneConfig
from wsss.errors import UserError
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.projector import Projector
from wsss.models.tokens import (
    HybridTokens,
    Patches,
    TokenEncoder,
    VisionTokens,
    key_bias,
    sine_positions,
    token_encoder,
)


def build(name: str, stride: int = 16) -> tuple[Backbone, TokenEncoder]:
    torch.manual_seed(0)
    backbone = build_backbone(
        BackboneConfig(name=name, weights="random", allow_download=False), stride, True
    )
    return backbone.eval(), token_encoder(backbone, 32, 4, 4, -3).eval()


# Plain (DINO's is of this kind), with rotary embeddings, and a CNN.
@pytest.fixture(params=["deit_tiny_patch16_224", "eva02_tiny_patch14_224", "tf_efficientnet_lite0"])
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, TokenEncoder]:
    name = str(request.param)
    return build(name, 14 if "patch14" in name else 16)


def some_masks(count: int, cells: int) -> Tensor:
    masked = torch.rand(count, cells, generator=torch.Generator().manual_seed(2)) < 0.7
    masked[0] = True  # nothing visible
    return masked


def with_values(patches: Patches, masked: Tensor, make: Callable[[Tensor], Tensor]) -> Patches:
    """Change the tokens of hidden patches."""
    tokens = patches.tokens.clone()
    part = tokens[:, patches.prefix :]
    part[masked] = make(part[masked])
    return patches._replace(tokens=tokens)


@torch.no_grad()
def test_hidden_values_change_no_class_token(pair: tuple[Backbone, TokenEncoder]) -> None:
    backbone, encoder = pair
    patches = encoder.embed(backbone, torch.rand(3, 3, 56, 64))
    masked = some_masks(3, patches.grid[0] * patches.grid[1])
    changed = with_values(patches, masked, lambda x: torch.randn_like(x) * 30)
    before, after = (encoder.encode(backbone, p, masked) for p in (patches, changed))
    assert torch.equal(before.cls, after.cls)
    # Tokens that stay visible do not see them either; the hidden ones are queries still.
    visible = ~masked.view(3, *patches.grid)
    for one, other in ((before.final, after.final), (before.aux, after.aux)):
        assert torch.equal(one.movedim(1, 3)[visible], other.movedim(1, 3)[visible])
        assert not torch.equal(one, other)
    free = encoder.encode(backbone, changed)
    assert not torch.allclose(free.cls, encoder.encode(backbone, patches).cls, atol=1e-3)


def test_class_tokens_are_those_of_full_passes(pair: tuple[Backbone, TokenEncoder]) -> None:
    """Hidden queries are left out; values and gradients are the same."""
    backbone, encoder = pair
    images = torch.rand(2, 3, 56, 64)
    grid = encoder.embed(backbone, images[:1]).grid
    cells = grid[0] * grid[1]
    masked = some_masks(6, cells).view(2, 3, cells)
    most = int((~masked).sum(2).max())
    assert 0 < most < cells
    network = torch.nn.ModuleList([backbone, encoder])
    weights = torch.randn(6, encoder.dim)  # of squares, normalisation would leave no gradient
    found, gradients = [], []
    for short in (True, False):
        patches = encoder.embed(backbone, images)
        if short:
            cls = encoder.class_tokens(backbone, patches, masked, most)
        else:
            by_pass = masked.transpose(0, 1).flatten(0, 1)
            cls = encoder.encode(backbone, patches.repeat(3), by_pass).cls
        network.zero_grad()
        (cls * weights).sum().backward()
        found.append(cls)
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        scale = float(gradient.abs().max())
        assert torch.allclose(gradients[0][name], gradient, rtol=1e-3, atol=1e-4 * scale), name


@torch.no_grad()
def test_masked_passes_cost_what_is_visible() -> None:
    backbone, encoder = build("tf_efficientnet_lite0")
    lengths: list[int] = []
    for block in encoder.blocks(backbone).children():
        block.register_forward_pre_hook(lambda _m, args: lengths.append(args[0].shape[1]))
    patches = encoder.embed(backbone, torch.rand(2, 3, 64, 64))
    masked = torch.ones(2, 3, 16, dtype=torch.bool)
    masked[:, 1, 5:7] = False
    encoder.class_tokens(backbone, patches, masked, 2)
    assert lengths == [3] * 4
    # What is beyond the bound is not read, and no class token is without keys.
    assert encoder.class_tokens(backbone, patches, masked, 0).isfinite().all()


@torch.no_grad()
def test_every_block_gets_the_mask(pair: tuple[Backbone, TokenEncoder]) -> None:
    backbone, encoder = pair
    seen: list[Tensor] = []
    blocks = encoder.blocks(backbone)
    for block in blocks.children():
        block.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs["attn_mask"]), with_kwargs=True
        )
    patches = encoder.embed(backbone, torch.rand(1, 3, 56, 56))
    masked = some_masks(1, patches.grid[0] * patches.grid[1])
    encoder.encode(backbone, patches, masked)
    assert len(seen) == len(list(blocks.children()))
    assert all(torch.equal(mask, seen[0]) for mask in seen)


@torch.no_grad()
def test_hiding_nothing_is_the_plain_pass(pair: tuple[Backbone, TokenEncoder]) -> None:
    backbone, encoder = pair
    patches = encoder.embed(backbone, torch.rand(2, 3, 56, 56))
    nothing = torch.zeros(2, patches.grid[0] * patches.grid[1], dtype=torch.bool)
    plain, masked = encoder.encode(backbone, patches), encoder.encode(backbone, patches, nothing)
    assert torch.allclose(plain.cls, masked.cls, atol=1e-4)


def test_the_mask_is_finite_in_every_type() -> None:
    masked = torch.tensor([[True, False]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        bias = key_bias(masked, 1, dtype)
        assert bias.shape == (1, 1, 1, 3)
        assert bias.isfinite().all()
        weights = (bias.float() + 5).softmax(3)
        assert weights.flatten().tolist() == [0.5, 0.0, 0.5]


def test_masked_passes_are_finite_in_bf16(pair: tuple[Backbone, TokenEncoder]) -> None:
    backbone, encoder = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patches = encoder.embed(backbone, torch.rand(2, 3, 56, 56))
        masked = some_masks(2, patches.grid[0] * patches.grid[1])
        cls = encoder.encode(backbone, patches, masked).cls
    cls.float().sum().backward()
    assert cls.isfinite().all()
    gradients = [p.grad for p in (*backbone.parameters(), *encoder.parameters())]
    assert all(g.isfinite().all() for g in gradients if g is not None)


# Positions of all tokens; of patches alone, beside registers; with a token for distillation.
@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_reg4_dinov2",
    ],
)
@torch.no_grad()
def test_positions_are_resized_plainly(name: str) -> None:
    backbone, encoder = build(name, 14 if "patch14" in name else 16)
    vit = backbone.network.vit
    side = vit.patch_embed.patch_size[0]
    images = torch.rand(2, 3, 5 * side, 3 * side)
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    grid = vit.patch_embed.grid_size
    stored = vit.pos_embed[0, prefix:].T.reshape(1, -1, *grid)
    plain = F.interpolate(stored, (5, 3), mode="bicubic", align_corners=False)
    expected = vit.patch_embed(backbone.normalise(images)) + plain.permute(0, 2, 3, 1)
    patches = encoder.embed(backbone, images)
    assert patches.grid == (5, 3)
    got = patches.tokens[:, patches.prefix :].view(2, 5, 3, -1)
    assert torch.allclose(got, expected, atol=1e-5)
    # Prefix tokens are timm's own, whatever they are.
    own = vit._pos_embed(vit.patch_embed(backbone.normalise(images)))
    assert torch.allclose(patches.tokens[:, : patches.prefix], own[:, : patches.prefix], atol=1e-6)
    assert not torch.allclose(patches.tokens, own, atol=1e-3)


@torch.no_grad()
def test_positions_of_the_stored_grid_are_kept() -> None:
    backbone, encoder = build("deit_tiny_patch16_224")
    vit, images = backbone.network.vit, torch.rand(1, 3, 224, 224)
    own = vit._pos_embed(vit.patch_embed(backbone.normalise(images)))
    assert torch.allclose(encoder.embed(backbone, images).tokens, own, atol=1e-6)


def test_tokens_are_the_networks_own() -> None:
    """With timm's own forward pass as the judge, at the size where nothing is resized."""
    backbone, encoder = build("deit_tiny_patch16_224")
    assert isinstance(encoder, VisionTokens)
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        tokens = encoder(backbone, images)
        features = backbone(images)[-1]
        vit = backbone.network.vit
        normalised = (images - backbone.mean[:, None, None]) / backbone.std[:, None, None]
        cls = vit.forward_features(normalised)[:, 0]
        middle = vit.forward_intermediates(normalised, indices=[9], intermediates_only=True)[0]
    assert torch.allclose(tokens.final, features, atol=1e-5)
    assert torch.allclose(tokens.cls, cls, atol=1e-5)
    assert torch.allclose(tokens.aux, middle, atol=1e-5)  # block -3 of 12, before the norm
    assert not vit.pos_embed.requires_grad


def test_a_transformer_without_class_token_is_refused() -> None:
    with pytest.raises(UserError, match="class token"):
        build("vit_little_patch16_reg1_gap_256")


def test_a_hybrid_learns_everywhere_and_has_no_weights_twice() -> None:
    backbone, encoder = build("tf_efficientnet_lite0")
    assert isinstance(encoder, HybridTokens)
    assert encoder.dim == 32
    assert not {id(p) for p in encoder.parameters()} & {id(p) for p in backbone.parameters()}
    tokens = encoder(backbone, torch.rand(2, 3, 64, 48))
    assert tokens.cls.shape == (2, 32)
    assert tokens.final.shape == tokens.aux.shape == (2, 32, 4, 3)
    (tokens.cls.square().sum() + (tokens.final**3).sum() + tokens.aux.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_a_hybrid_of_few_blocks_takes_its_first_for_the_auxiliary_tokens() -> None:
    encoder = HybridTokens(8, 16, 2, 2, -3)
    backbone = nn.Module()
    backbone.forward = lambda _: [torch.rand(1, 8, 2, 2)]  # type: ignore[method-assign]
    tokens = encoder(backbone, torch.rand(1, 3, 32, 32))
    assert not torch.equal(tokens.aux, tokens.final)


def test_dimensions_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="dim 64 must be a multiple of heads 3"):
        HybridTokens(8, 64, 2, 3, -3)


def test_positions_differ_everywhere() -> None:
    places = sine_positions((6, 9), 32, torch.zeros(()))
    assert places.shape == (54, 32)
    distance = torch.cdist(places, places) + torch.eye(54) * 9
    assert distance.min() > 0.1


def test_a_projection_is_made_of_cosines() -> None:
    projector = Projector(8, 16, 4, 12)
    with torch.no_grad():
        projector.directions.weight.mul_(7)  # magnitude is fixed to 1
    values = projector(torch.randn(5, 8) * 100)
    assert values.shape == (5, 12)
    assert values.abs().max() <= 1 + 1e-5
