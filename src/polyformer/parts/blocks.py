"""Transformer blocks: attention and feed-forward with their residuals and norms."""

from collections.abc import Callable

from torch import Tensor, nn

from polyformer.parts.attention import Attention, CrossAttention
from polyformer.parts.feedforward import FeedForward
from polyformer.parts.layout import Layout
from polyformer.parts.state import LayerState
from polyformer.parts.taps import Taps

NewNorm = Callable[[], nn.Module]


class PostNormBlock(nn.Module):
    """Normalised after each residual, as in the Transformer and BERT."""

    def __init__(self, attn: nn.Module, ffn: FeedForward, norm: NewNorm, dropout: float) -> None:
        super().__init__()
        self.attn, self.attn_norm = attn, norm()
        self.ffn, self.ffn_norm = ffn, norm()
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        cross_head_mask: Tensor | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) packed -> the same shape. The source is a cross block's."""
        own = None if state is None else state.own
        x = self.attn_norm(x + self.drop(self.attn(x, layout, own, head_mask, taps)))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


class PreNormBlock(PostNormBlock):
    """Normalised before attention and feed-forward, inside the residuals, as in the Transformer's first code."""

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        cross_head_mask: Tensor | None = None,
    ) -> Tensor:
        """x (rows, length, width), or (tokens, width) packed -> the same shape."""
        own = None if state is None else state.own
        x = x + self.drop(self.attn(self.attn_norm(x), layout, own, head_mask, taps))
        return x + self.drop(self.ffn(self.ffn_norm(x)))


class PostNormCrossBlock(PostNormBlock):
    """The same with attention to an encoder between the two."""

    def __init__(self, attn: Attention, cross: CrossAttention, ffn: FeedForward, norm: NewNorm, dropout: float) -> None:
        super().__init__(attn, ffn, norm, dropout)
        self.cross, self.cross_norm = cross, norm()

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        cross_head_mask: Tensor | None = None,
    ) -> Tensor:
        """As above; source (rows, source length, width) and its layout, or None to skip the encoder."""
        own, across = (None, None) if state is None else (state.own, state.cross)
        x = self.attn_norm(x + self.drop(self.attn(x, layout, own, head_mask, taps)))
        if source is not None and source_layout is not None:
            x = self.cross_norm(x + self.drop(self.cross(x, source, source_layout, across, cross_head_mask, taps)))
        return self.ffn_norm(x + self.drop(self.ffn(x)))


class PreNormCrossBlock(PostNormCrossBlock):
    """The same, normalised inside the residuals."""

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: LayerState | None = None,
        head_mask: Tensor | None = None,
        taps: Taps | None = None,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        cross_head_mask: Tensor | None = None,
    ) -> Tensor:
        """As above."""
        own, across = (None, None) if state is None else (state.own, state.cross)
        x = x + self.drop(self.attn(self.attn_norm(x), layout, own, head_mask, taps))
        if source is not None and source_layout is not None:
            x = x + self.drop(self.cross(self.cross_norm(x), source, source_layout, across, cross_head_mask, taps))
        return x + self.drop(self.ffn(self.ffn_norm(x)))
