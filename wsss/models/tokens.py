"""Token encoders: a transformer that takes key masks and gives its class token and two maps.

Either a pretrained vision transformer or, where there is none, a CNN whose features are the patch
embedding of a few transformer blocks. Blocks are timm's, so that both attend in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import Backbone
from wsss.models.dropout import replace_dropout
from wsss.models.transformers import TransformerFeatures


class Patches(NamedTuple):
    """Embedded images: ``tokens`` (B, P + hw, D), the P prefix tokens first, the class token
    before all; ``grid`` (h, w); ``rope`` rotary embeddings of a network that has them."""

    tokens: Tensor
    grid: tuple[int, int]
    prefix: int
    rope: Any = None

    def take(self, start: int, stop: int) -> Patches:
        """Return some of the images."""
        return self._replace(tokens=self.tokens[start:stop])

    def repeat(self, count: int) -> Patches:
        """Return the batch ``count`` times, one whole batch after the other."""
        return self._replace(tokens=self.tokens.repeat(count, 1, 1))

    def visible(self, masked: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Gather the tokens that masks leave visible, in their order.

        Args:
            masked: (B, n, hw) bool, true where hidden, of ``n`` views of each image.
            most: tokens of a view, K; of one with fewer visible ones the rest are hidden ones.

        Returns:
            Tokens (n B, P + K, D), view by view, and which patches of them are hidden (n B, K).
        """
        order = masked.byte().argsort(stable=True, dim=2)[:, :, :most]
        count, views, most = order.shape
        dim = self.tokens.shape[2]
        places = order.flatten(1)[:, :, None].expand(-1, -1, dim)
        kept = self.tokens[:, self.prefix :].gather(1, places).view(count, views, most, dim)
        first = self.tokens[:, None, : self.prefix].expand(-1, views, -1, -1)
        tokens = torch.cat([first, kept], 2).transpose(0, 1).flatten(0, 1)
        return tokens, masked.gather(2, order).transpose(0, 1).flatten(0, 1)


class Tokens(NamedTuple):
    """What an encoder gives: ``cls`` (B, D) and ``final`` (B, D, h, w) after the last
    normalisation, ``aux`` (B, D, h, w) of an earlier block before it."""

    cls: Tensor
    final: Tensor
    aux: Tensor


def key_bias(masked: Tensor, prefix: int, dtype: torch.dtype) -> Tensor:
    """Additive attention mask that hides keys from all heads and queries.

    The smallest finite number of ``dtype`` stands for minus infinity: the softmax gives such a
    key exactly 0 and cannot be NaN. Prefix tokens stay visible, so that no query is left without
    keys.

    Args:
        masked: (B, hw) bool, true where a key is hidden.
        prefix: tokens before the patches.

    Returns:
        (B, 1, 1, prefix + hw).
    """
    hidden = torch.cat([masked.new_zeros(len(masked), prefix), masked], 1)
    bias = torch.zeros(hidden.shape, dtype=dtype, device=masked.device)
    return bias.masked_fill(hidden, torch.finfo(dtype).min)[:, None, None]


def _attention_dtype(tokens: Tensor) -> torch.dtype:
    kind = tokens.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype


class TokenEncoder(nn.Module):
    """What both encoders share; the backbone, which owns its weights, is handed in.

    Attributes:
        dim: D.
        aux_index: block whose output is ``aux``, counted from the end (-1 the last).
    """

    dim: int
    aux_index: int

    def embed(self, backbone: Backbone, images: Tensor) -> Patches:
        """Map (B, 3, H, W) RGB in [0, 1] to tokens before the first block."""
        raise NotImplementedError  # pragma: no cover

    def blocks(self, backbone: Backbone) -> nn.Module:
        """Return the transformer blocks in order."""
        raise NotImplementedError  # pragma: no cover

    def normalise(self, backbone: Backbone, tokens: Tensor) -> Tensor:
        """Apply the last normalisation to (B, N, D)."""
        raise NotImplementedError  # pragma: no cover

    def forward(self, backbone: Backbone, images: Tensor) -> Tokens:
        """Embed and encode (B, 3, H, W) RGB in [0, 1]."""
        return self.encode(backbone, self.embed(backbone, images))

    def encode(self, backbone: Backbone, patches: Patches, masked: Tensor | None = None) -> Tokens:
        """Run the blocks.

        Args:
            masked: (B, hw) bool: keys that no query reads in any block. Their tokens go on as
                queries, so the cost is that of a full pass: see :meth:`class_tokens`.
        """
        x, aux = self._through(backbone, patches.tokens, masked, patches)
        x = self.normalise(backbone, x)
        return Tokens(x[:, 0], _as_map(x, patches), _as_map(aux, patches))

    def class_tokens(
        self, backbone: Backbone, patches: Patches, masked: Tensor, most: int
    ) -> Tensor:
        """Class tokens of passes with hidden keys, at the cost of the visible ones.

        The same as those of :meth:`encode`: neither the class token nor a visible one reads a
        hidden key in any block, so that hidden queries have no part in them and are left out.

        Args:
            masked: (B, n, hw) bool: keys that no query reads, for ``n`` passes of each image.
            most: upper bound of visible patches in a pass; a number, not read from ``masked``, for
                which the host would have to wait.

        Returns:
            (n B, D), pass by pass, each of the whole batch.
        """
        if patches.rope is not None:  # its embeddings are those of a whole grid
            by_pass = masked.transpose(0, 1).flatten(0, 1)
            return self.encode(backbone, patches.repeat(masked.shape[1]), by_pass).cls
        tokens, hidden = patches.visible(masked, most)
        x, _ = self._through(backbone, tokens, hidden, patches)
        return self.normalise(backbone, x[:, :1])[:, 0]

    def _through(
        self, backbone: Backbone, x: Tensor, masked: Tensor | None, patches: Patches
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks on tokens (B, N, D); return what the last one gives and ``aux``."""
        bias = None
        if masked is not None:
            bias = key_bias(masked, patches.prefix, _attention_dtype(x))
        blocks = self.blocks(backbone)
        aux, taken = x, max(0, len(list(blocks.children())) + self.aux_index)
        for index, (block, extra) in enumerate(_steps(blocks, patches.rope)):
            x = block(x, attn_mask=bias, **extra)
            if index == taken:
                aux = x
        return x, aux


def _steps(blocks: nn.Module, rope: Any) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    for index, block in enumerate(blocks.children()):
        if rope is None:
            yield block, {}
        else:
            # Networks with mixed rotary embeddings have one a block.
            yield block, {"rope": rope[index] if rope.dim() > 3 else rope}


def _as_map(tokens: Tensor, patches: Patches) -> Tensor:
    maps = tokens[:, patches.prefix :].transpose(1, 2)
    return maps.reshape(*maps.shape[:2], *patches.grid)


class VisionTokens(TokenEncoder):
    """The tokens of a timm vision transformer with a class token.

    Its position embedding is frozen and resized to each image bicubically. Networks with rotary
    embeddings resize theirs as timm does, with a filter against aliasing.

    Raises:
        UserError: the network has no class token.
    """

    def __init__(self, backbone: Backbone, aux_index: int) -> None:
        super().__init__()
        vit = self._vit(backbone)
        if getattr(vit, "cls_token", None) is None:
            raise UserError(
                "this method needs a vision transformer with a class token, which the configured "
                "backbone has not: choose another, such as deit_base_patch16_224"
            )
        if isinstance(vit.pos_embed, nn.Parameter):
            vit.pos_embed.requires_grad_(False)
        self.dim, self.aux_index = int(vit.embed_dim), aux_index

    @staticmethod
    def _vit(backbone: Backbone) -> Any:
        network: Any = backbone.network
        return network.vit

    def embed(self, backbone: Backbone, images: Tensor) -> Patches:
        """Cut patches and add position embeddings, prefix tokens and what else comes first."""
        vit = self._vit(backbone)
        x = vit.patch_embed(backbone.normalise(images))
        grid, rope = (x.shape[1], x.shape[2]), None
        if getattr(vit, "rope", None) is not None:
            x, rope = vit._pos_embed(x)
        else:
            x = _placed(vit, x)
        return Patches(vit.norm_pre(x), grid, int(vit.num_prefix_tokens), rope)

    def blocks(self, backbone: Backbone) -> nn.Module:
        """The network's own."""
        blocks: nn.Module = self._vit(backbone).blocks
        return blocks

    def normalise(self, backbone: Backbone, tokens: Tensor) -> Tensor:
        """The network's own."""
        normalised: Tensor = self._vit(backbone).norm(tokens)
        return normalised


def _placed(vit: Any, patches: Tensor) -> Tensor:
    """Put the prefix tokens before (B, h, w, D) patches and add position embeddings.

    As timm's own, but for the resize: plainly bicubic, as the vision transformers of weakly
    supervised work are used, where timm filters against aliasing.
    """
    count, height, width, dim = patches.shape
    names = ("cls_token", "dist_token", "reg_token")
    tokens = [t for name in names if (t := getattr(vit, name, None)) is not None]
    first = [token.expand(count, -1, -1) for token in tokens]
    # Either all tokens have a position, or patches alone.
    alone = 0 if vit.no_embed_class else int(vit.num_prefix_tokens)
    if vit.pos_embed is None:
        return torch.cat([*first, patches.reshape(count, -1, dim)], 1)
    places = vit.pos_embed[:, alone:]
    places = resized_positions(places, tuple(vit.patch_embed.grid_size), (height, width))
    x = torch.cat([*first, patches.reshape(count, -1, dim)], 1)
    before = x.shape[1] - places.shape[1]
    known = vit.pos_embed[:, :alone] if alone else places.new_zeros(1, before, dim)
    placed: Tensor = vit.pos_drop(x + torch.cat([known, places], 1))
    return placed


def resized_positions(places: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize (1, h w, D) position embeddings from a grid to another, bicubically."""
    if old == new:
        return places
    maps = places.float().view(1, *old, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, new, mode="bicubic", align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(places.dtype)


class HybridTokens(TokenEncoder):
    """CNN features as patch embedding and a few transformer blocks on top.

    For who has ImageNet weights of a CNN but of no transformer. Position embeddings are the fixed
    sines of Vaswani et al., "Attention Is All You Need", NeurIPS 2017, in two dimensions.

    A patch's token has seen the pixels around it, as far as the CNN's receptive field goes: what
    key masks hide are tokens, whose pixels also reach visible neighbours.

    Args:
        channels: of the CNN's last map.
        dim: D, a multiple of 4.
    """

    def __init__(self, channels: int, dim: int, depth: int, heads: int, aux_index: int) -> None:
        super().__init__()
        import wsss.torchvision_shim  # noqa: F401  (timm imports torchvision)

        from timm.models.vision_transformer import Block  # isort: skip  (after the shim)

        if dim % heads or dim % 4:
            raise UserError(
                f"method.params: dim {dim} must be a multiple of heads {heads} and of 4"
            )
        self.dim, self.aux_index = dim, aux_index
        self.project = nn.Conv2d(channels, dim, 1)
        self.cls = nn.Parameter(torch.empty(1, 1, dim))
        self.layers = nn.Sequential(*(Block(dim, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        replace_dropout(self)
        self._start()

    def _start(self) -> None:
        """Start as narrow transformers must: with the deviation of wide ones, 0.02, attention adds
        so little that class tokens of all images are nearly alike."""
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.project.weight, std=0.02)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, backbone: Backbone, images: Tensor) -> Patches:
        """Project the CNN's last map, add positions, put the class token before it."""
        x = self.project(backbone(images)[-1])
        grid = (x.shape[2], x.shape[3])
        places = sine_positions(grid, self.dim, x)
        x = x.flatten(2).transpose(1, 2) + places
        return Patches(torch.cat([self.cls.to(x.dtype).expand(len(x), -1, -1), x], 1), grid, 1)

    def blocks(self, backbone: Backbone) -> nn.Module:  # noqa: ARG002
        """The ones on top of the CNN."""
        return self.layers

    def normalise(self, backbone: Backbone, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Layer normalisation."""
        normalised: Tensor = self.norm(tokens)
        return normalised


def sine_positions(grid: tuple[int, int], dim: int, like: Tensor) -> Tensor:
    """Return (hw, dim) sines and cosines of row and column at geometric frequencies.

    Args:
        grid: (h, w).
        dim: a multiple of 4: a quarter each for sine and cosine of row and of column.
        like: a tensor of the wanted device and type.
    """
    device = like.device
    rate = 10000.0 ** -(torch.arange(dim // 4, device=device) / (dim // 4))
    rows, columns = (torch.arange(n, device=device)[:, None] * rate for n in grid)
    down = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, grid[1], -1)
    across = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(grid[0], -1, -1)
    return torch.cat([down, across], 2).flatten(0, 1).to(like.dtype)


def token_encoder(
    backbone: Backbone, dim: int, depth: int, heads: int, aux_index: int
) -> TokenEncoder:
    """Return the encoder that fits the backbone: its own tokens if it is a transformer."""
    if isinstance(backbone.network, TransformerFeatures):
        return VisionTokens(backbone, aux_index)
    return HybridTokens(backbone.channels[-1], dim, depth, heads, aux_index)
