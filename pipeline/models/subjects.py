"""A first layer that knows whom a signal was recorded from: for any net of signals, `subject: embedding` or `layer`.

Whose a signal is travels with it, as S + 1 further channels that are constant in time: a one in the channel of the
subject, number 0 for one that is not known. So mixup gives shares of two subjects and an exchanged window the share of
its length, in the same measure as the targets, and nothing else between items and net has to know of subjects.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Subject = Literal["none", "embedding", "layer"]

N_EMBEDDED = 8
"""Channels that an embedding adds."""


def add_subjects(inputs: Tensor, subjects: Tensor | None, n_subjects: int) -> Tensor:
    """Return signals (B, C, T) with a channel for each subject behind their own, (B, C + S + 1, T).

    Args:
        inputs: (B, C, T); left untouched.
        subjects: (B,) int64 number of each signal's subject, 1..S, 0 for not known; None where none is known.
        n_subjects: S.
    """
    number = torch.zeros(len(inputs), dtype=torch.int64) if subjects is None else subjects
    shares = nn.functional.one_hot(number.to(inputs.device), n_subjects + 1).to(inputs.dtype)
    return torch.cat([inputs, shares[:, :, None].expand(-1, -1, inputs.shape[2])], dim=1)


class SubjectLayer(nn.Module):
    """Turns signals by what is known of their subject; signals without such channels are of nobody known.

    Subjects that training never showed are treated as not known at prediction, when nothing was learnt of them.
    """

    seen: Tensor

    def __init__(self, how: Literal["embedding", "layer"], n_channels: int, n_subjects: int) -> None:
        """Start `embedding` (8 further channels, constant in time) small, and `layer` (C to C at each time) as it is.

        Source: the layer is that of Defossez et al. 2022 (https://arxiv.org/abs/2208.12266).
        """
        super().__init__()
        self.n_channels, self.n_subjects = n_channels, n_subjects
        if how == "layer":
            self.maps = nn.Parameter(torch.eye(n_channels).repeat(n_subjects + 1, 1, 1))
        else:
            self.embedding = nn.Parameter(0.1 * torch.randn(n_subjects + 1, N_EMBEDDED))
        self.how = how
        self.register_buffer("seen", torch.arange(n_subjects + 1) == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T) of `layer` or (B, C + 8, T) of `embedding` for (B, C, T) or (B, C + S + 1, T)."""
        signals = x[:, : self.n_channels]
        shares = self._shares(x)
        if self.how == "layer":
            return torch.bmm(torch.einsum("bs,sij->bij", shares, self.maps.to(shares.dtype)).to(x.dtype), signals)
        added = (shares @ self.embedding.to(shares.dtype)).to(x.dtype)
        return torch.cat([signals, added[:, :, None].expand(-1, -1, x.shape[2])], dim=1)

    def _shares(self, x: Tensor) -> Tensor:
        """Return how much of each signal is whose, (B, S + 1), the rows summing to one."""
        if x.shape[1] == self.n_channels:
            return x.new_zeros(len(x), self.n_subjects + 1).index_fill(1, x.new_zeros(1, dtype=torch.int64), 1.0)
        shares = x[:, self.n_channels :].mean(dim=2)
        if self.training:
            self.seen.logical_or_((shares > 0).any(dim=0))
            return shares
        known = shares * self.seen
        return known + (shares - known).sum(dim=1, keepdim=True) * (torch.arange(len(self.seen), device=x.device) == 0)


def with_subjects(net: nn.Module, layer: SubjectLayer) -> nn.Module:
    """Return the net with the layer before its others, in place; these keep their names and their order."""
    children = dict(net.named_children())
    for name in children:
        delattr(net, name)
    net.add_module("subjects", layer)
    for name, child in children.items():
        net.add_module(name, child)
    return net


def embedded_channels(how: Subject) -> int:
    """Return how many channels the layer adds to those of the signals."""
    return N_EMBEDDED if how == "embedding" else 0
