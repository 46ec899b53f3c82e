"""The families in PyTorch: nn.LSTM and nn.RNN, and plain tensors for the random ones."""

from __future__ import annotations

from typing import Any

import torch

from .cases import STRIDE, log_density


def gibbs(c: Any) -> Any:
    W, bvis, bhid, start = map(torch.from_numpy, (c.W, c.bvis, c.bhid, c.v))

    @torch.inference_mode()
    def run() -> Any:
        v = start
        for _ in range(c.steps):
            h = torch.bernoulli(torch.sigmoid(torch.addmm(bhid, v, W)))
            p = torch.sigmoid(torch.addmm(bvis, h, W.T))
            v = torch.bernoulli(p)
        return c.statistics(p.numpy(), v.numpy())

    return run


def recurrent(c: Any) -> Any:
    kind = torch.nn.LSTM if c.gates == 4 else torch.nn.RNN
    layer = kind(c.W.shape[0], c.U.shape[0])
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(c.W.T))
        layer.weight_hh_l0.copy_(torch.from_numpy(c.U.T))
        layer.bias_ih_l0.copy_(torch.from_numpy(c.b))
        layer.bias_hh_l0.zero_()
    x, g = torch.from_numpy(c.x), torch.from_numpy(c.g)
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]

    @torch.inference_mode()
    def forward() -> Any:
        return {"h": layer(x)[0].numpy()}

    def gradients() -> Any:
        W, U, b = torch.autograd.grad(layer(x)[0], weights, g)
        return {"W": W.T.numpy(), "U": U.T.numpy(), "b": b.numpy()}

    return gradients if c.gradients else forward


def metropolis(c: Any) -> Any:
    start = torch.from_numpy(c.start)

    @torch.inference_mode()
    def run() -> Any:
        x, y = start[0], start[1]
        now = log_density(x, y)
        for _ in range(c.steps):
            x1 = x + STRIDE * torch.randn(c.chains)
            y1 = y + STRIDE * torch.randn(c.chains)
            there = log_density(x1, y1)
            accept = torch.log1p(-torch.rand(c.chains)) < there - now
            x, y = torch.where(accept, x1, x), torch.where(accept, y1, y)
            now = torch.where(accept, there, now)
        return c.statistics(x.numpy(), y.numpy())

    return run


VERSIONS = {"Gibbs": gibbs, "LSTM": recurrent, "Elman": recurrent, "Metropolis": metropolis}
