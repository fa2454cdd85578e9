"""2-simplicial attention written in PyTorch operations, in every way that we know to be fast: the peer of our kernel.

Usage: python simplicial_torch.py '{"shape": {"B", "T", "H", "K", "D", "w1", "w2"}, "threads", "samples", "maxBytes", "data"}'

`data` is a file of float32: q [B, T, H, D], k1, k2, v1, v2 [B, T, K, D] and the output [B, T, H, D] to be checked
against. One JSON line for each expression: seconds of the forward pass and of forward and backward, best of the samples.
An expression whose largest arrays exceed `maxBytes` is left out.
"""
import json
import math
import sys
import time

import numpy
import torch
import torch.nn.functional as F

options = json.loads(sys.argv[1])
shape = options["shape"]
B, T, H, K, D, w1, w2 = (shape[name] for name in ("B", "T", "H", "K", "D", "w1", "w2"))
w1, w2 = w1 or T, w2 or T
G = H // K
scale = 1 / math.sqrt(D)
torch.set_num_threads(options["threads"])


def softmax_of_pairs(logits):
    """Over the last two axes together."""
    return logits.flatten(-2).softmax(-1).view_as(logits)


def closed(*allowed):
    """What is added to a logit: 0 where all conditions hold, else -inf."""
    mask = allowed[0]
    for other in allowed[1:]:
        mask = mask & other
    return torch.zeros(mask.shape).masked_fill(~mask, -math.inf)


def in_window(rows, keys, window):
    """[rows, keys]: whether a position is in the window of another."""
    distance = rows[:, None] - keys[None, :]
    return (distance >= 0) & (distance < window)


def rows_before(x, first, last, window):
    """Row t of a block with its `window` rows up to itself, [N, rows, window, D]; rows before the first one are zeros."""
    padded = F.pad(x, (0, 0, window - 1, 0))[:, first : last + window - 1]
    return padded.unfold(1, window, 1).transpose(-1, -2)


# Every expression takes q [N, T, G, D] and k1, k2, v1, v2 [N, T, D], N = B·K.


def naive(q, k1, k2, v1, v2):
    """One einsum over all pairs, masked."""
    position = torch.arange(T)
    first, second = (in_window(position, position, w) for w in (w1, w2))
    logits = scale * torch.einsum("ntgd,nsd,nrd->ntgsr", q, k1, k2)
    p = softmax_of_pairs(logits + closed(first[:, None, :, None], second[:, None, None, :]))
    return torch.einsum("ntgsr,nsd,nrd->ntgd", p, v1, v2)


def gathered_windows(block):
    """Both windows of each query gathered: a batch of small products, [G·w2, D]·[D, w1]."""

    def expression(q, k1, k2, v1, v2):
        outputs = []
        for first in range(0, T, block):
            last = min(T, first + block)
            rows = torch.arange(first, last)
            k1w, v1w = (rows_before(x, first, last, w1) for x in (k1, v1))
            k2w, v2w = (rows_before(x, first, last, w2)[:, :, None] for x in (k2, v2))
            a = (q[:, first:last, :, None] * k2w * scale).flatten(2, 3)
            mask = closed(
                (rows[:, None] >= torch.arange(w1 - 1, -1, -1)[None])[:, None, None],
                (rows[:, None] >= torch.arange(w2 - 1, -1, -1)[None])[:, None, :, None],
            )
            p = softmax_of_pairs((a @ k1w.transpose(-1, -2)).unflatten(2, (G, w2)) + mask)
            pv = p.flatten(2, 3) @ v1w
            outputs.append((pv.unflatten(2, (G, w2)) * v2w).sum(3))
        return torch.cat(outputs, 1)

    return expression


def virtual_heads(block):
    """Banded attention of G·w2 virtual query heads q ∘ k2[t − δ]: one large product for a block of queries."""

    def expression(q, k1, k2, v1, v2):
        outputs = []
        for first in range(0, T, block):
            last, low = min(T, first + block), max(0, first - w1 + 1)
            rows = torch.arange(first, last)
            k2w, v2w = (rows_before(x, first, last, w2)[:, :, None] for x in (k2, v2))
            a = (q[:, first:last, :, None] * k2w * scale).flatten(1, 3)
            mask = closed(
                in_window(rows, torch.arange(low, last), w1)[:, None, None, :],
                (rows[:, None] >= torch.arange(w2 - 1, -1, -1)[None])[:, None, :, None],
            )
            logits = (a @ k1[:, low:last].transpose(-1, -2)).unflatten(1, (last - first, G, w2))
            pv = softmax_of_pairs(logits + mask).flatten(1, 3) @ v1[:, low:last]
            outputs.append((pv.unflatten(1, (last - first, G, w2)) * v2w).sum(3))
        return torch.cat(outputs, 1)

    return expression


def loop_over_offsets(block):
    """The same, one offset δ of the short window after the other; parts are merged by their log-sum-exps."""

    def expression(q, k1, k2, v1, v2):
        outputs = []
        for first in range(0, T, block):
            last, low = min(T, first + block), max(0, first - w1 + 1)
            rows = torch.arange(first, last)
            mask = closed(in_window(rows, torch.arange(low, last), w1))[:, None, :]
            parts, sums = [], []
            for offset in range(min(w2, last)):
                k2d, v2d = (F.pad(x, (0, 0, offset, 0))[:, first:last, None] for x in (k2, v2))
                logits = ((q[:, first:last] * k2d * scale).flatten(1, 2) @ k1[:, low:last].transpose(-1, -2)).unflatten(
                    1, (last - first, G)
                ) + mask
                total = logits.logsumexp(-1, keepdim=True)
                pv = (logits - total).exp().flatten(1, 2) @ v1[:, low:last]
                parts.append(pv.unflatten(1, (last - first, G)) * v2d)
                sums.append(total + closed(rows >= offset)[:, None, None])
            weights = torch.cat(sums, -1).softmax(-1)
            outputs.append((torch.stack(parts, -1) * weights[:, :, :, None]).sum(-1))
        return torch.cat(outputs, 1)

    return expression


def explicit_pairs(block):
    """Ordinary attention on the keys k1 ∘ k2 of all pairs that a block of queries sees, fused where PyTorch has that."""
    fused = getattr(F, "scaled_dot_product_attention", None)

    def expression(q, k1, k2, v1, v2):
        outputs = []
        for first in range(0, T, block):
            last, low1, low2 = min(T, first + block), max(0, first - w1 + 1), max(0, first - w2 + 1)
            rows = torch.arange(first, last)
            pairs = lambda x, y: (x[:, low1:last, None] * y[:, None, low2:last]).flatten(1, 2)
            mask = closed(
                in_window(rows, torch.arange(low1, last), w1)[:, :, None],
                in_window(rows, torch.arange(low2, last), w2)[:, None, :],
            ).flatten(1)
            keys, values, queries = pairs(k1, k2), pairs(v1, v2), q[:, first:last].transpose(1, 2)
            if fused is not None:
                expand = lambda x: x[:, None].expand(-1, G, -1, -1)
                out = fused(queries, expand(keys), expand(values), attn_mask=mask)
            else:
                out = ((queries * scale) @ keys[:, None].transpose(-1, -2) + mask).softmax(-1) @ values[:, None]
            outputs.append(out.transpose(1, 2))
        return torch.cat(outputs, 1)

    return expression


# Name, expression, elements of its largest array. Blocks of other sizes were slower.
N = B * K
candidates = [("einsum over all pairs", naive, N * T * G * T * T)]
for block in (16, 64, 256):
    rows = min(block, T)
    candidates += [
        (f"gathered windows, blocks of {block}", gathered_windows(block), N * T * G * w1 * w2),
        (f"virtual heads, blocks of {block}", virtual_heads(block), N * T * G * w2 * min(T, rows + w1 - 1)),
    ]
banded = N * T * G * w2 * min(T, 64 + w1 - 1)
candidates.append(("loop over offsets, blocks of 64", loop_over_offsets(64), banded))
pairs = min(T, 16 + w1 - 1) * min(T, 16 + w2 - 1)
candidates.append(("explicit pairs, blocks of 16", explicit_pairs(16), N * T * max(G, D // 16) * pairs))
KEPT = 4  # arrays of that size alive in a backward pass: logits, probabilities, their gradients


def load():
    data = torch.from_numpy(numpy.fromfile(options["data"], dtype=numpy.float32))
    sizes = [B * T * H * D] + [B * T * K * D] * 4 + [B * T * H * D]
    q, *keys, out = data.split(sizes)
    heads = lambda x: x.view(B, T, K, D).transpose(1, 2).reshape(N, T, D)
    queries = lambda x: x.view(B, T, K, G, D).transpose(1, 2).reshape(N, T, G, D)
    return [queries(q), *map(heads, keys)], queries(out)


def best(work, samples):
    work()
    seconds = []
    for _ in range(samples):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    inputs, expected = load()
    dout = torch.randn_like(expected)
    for name, expression, elements in candidates:
        if 4 * KEPT * elements > options["maxBytes"]:
            continue

        def forward():
            with torch.no_grad():
                return expression(*inputs)

        def backward():
            leaves = [x.detach().requires_grad_() for x in inputs]
            return torch.autograd.grad(expression(*leaves), leaves, dout)

        error = ((forward() - expected).norm() / expected.norm()).item()
        if not error < 1e-4:
            raise SystemExit(f"{name} differs from the output to be checked against by {error}")
        seconds = {"forward": best(forward, options["samples"]), "both": best(backward, options["samples"])}
        version = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        print(json.dumps({"name": name, **seconds, "error": error, **version}), flush=True)


main()
