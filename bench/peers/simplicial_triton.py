"""2-simplicial attention, forward, in Triton: our first draft of the kernel, and what the CUDA engine is measured beside.

    o[b,i,h,:] = sum over (j, k) of softmax(scale * sum_d q[b,i,h,d] k1[b,j,h/G,d] k2[b,k,h/G,d]) * v1[b,j,h/G,:] * v2[b,k,h/G,:]

with i - w1 < j <= i, i - w2 < k <= i, scale = 1/sqrt(D) and G = Hq / Hkv query heads to a key head. q, o: [B, N, Hq, D]; k1, k2, v1, v2:
[B, N, Hkv, D], contiguous bfloat16.

A program makes the G outputs of one position, batch and key head, so that the tile of a tensor-core product has G rows. The form is symmetric in the two
windows; call the shorter one `a` and the longer `b`. The outer loop goes over tiles of b, loaded once, the inner one over the rows of a: two products
[G, D]·[D, TILE] and [G, TILE]·[TILE, D] for each of them, q·ka and the result's factor va on CUDA cores. The other order of the loops, tiles of b read
again for every row of a, is slower. On an H100 it reaches 525 TFLOP/s at 512x32. Tiles of 64 and the other numbers of warps are slower at every shape that
is measured (H200, Triton 3.6, 512x32, G = 64: 390 TFLOP/s with tiles of 64, 258 with 8 warps, 525 as it is).

Takes one JSON argument {"shapes": [[N, Hq, Hkv, w1, w2], ...], "repeats": 5}; prints a JSON line a shape: checked on some rows against float32,
then timed. FLOPs: 4·D a query head and pair. Without Triton it prints the reason alone.
"""
import json
import math
import sys

import torch

from gpu_timing import emit, median_ms

try:
    import triton
    import triton.language as tl
except ImportError as error:
    emit(name="2-simplicial attention", missing=f"Triton is not installed ({error})")
    sys.exit(0)

D = 128
TILE = 128  # positions of b
# The factors q·k1 and the weights are rounded to bfloat16 for the products, and so is the result: by at most 2^-8 each.
TOLERANCE = 3 * 2**-8


@triton.jit
def row_of_a(q, ka, va, kb, vb, seen, m, l, acc, scale_log2, MASKED: tl.constexpr):
    """One row of a against a tile of b: the online softmax, in powers of 2."""
    s = tl.dot(q * ka[None, :], kb) * scale_log2
    if MASKED:
        s = tl.where(seen[None, :], s, float("-inf"))
    m_new = tl.maximum(m, tl.max(s, 1))
    p = tl.exp2(s - m_new[:, None])
    rescale = tl.exp2(m - m_new)
    l = l * rescale + tl.sum(p, 1)
    acc = acc * rescale[:, None] + tl.dot(p.to(vb.dtype), vb) * va.to(tl.float32)[None, :]
    return m_new, l, acc


@triton.jit
def forward_kernel(Q, KA, VA, KB, VB, O, N, HKV, WA, WB, scale_log2,
                   G: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):
    i = N - 1 - tl.program_id(0)  # long rows first
    batch = tl.program_id(1) // HKV
    head = tl.program_id(1) % HKV
    d = tl.arange(0, D)
    n = tl.arange(0, TILE)
    heads = ((batch.to(tl.int64) * N + i) * HKV + head) * G + tl.arange(0, G)
    q = tl.load(Q + heads[:, None] * D + d[None, :])
    row = HKV * D
    first = (batch.to(tl.int64) * N * HKV + head) * D
    KA += first
    VA += first
    KB += first
    VB += first
    a_begin = tl.maximum(0, i - WA + 1)
    b_begin = tl.maximum(0, i - WB + 1)
    m = tl.full([G], -1.0e30, tl.float32)
    l = tl.zeros([G], tl.float32)
    acc = tl.zeros([G, D], tl.float32)
    b_whole = b_begin + (i + 1 - b_begin) // TILE * TILE  # the end of the tiles that need no mask
    for t in tl.range(b_begin, b_whole, TILE, num_stages=1):
        b = t + n
        kb = tl.load(KB + b[None, :] * row + d[:, None])
        vb = tl.load(VB + b[:, None] * row + d[None, :])
        for a in tl.range(a_begin, i + 1, num_stages=2):
            ka = tl.load(KA + a * row + d)
            va = tl.load(VA + a * row + d)
            m, l, acc = row_of_a(q, ka, va, kb, vb, b <= i, m, l, acc, scale_log2, False)
    if b_whole <= i:
        b = b_whole + n
        kb = tl.load(KB + b[None, :] * row + d[:, None], mask=(b <= i)[None, :], other=0.0)
        vb = tl.load(VB + b[:, None] * row + d[None, :], mask=(b <= i)[:, None], other=0.0)
        for a in tl.range(a_begin, i + 1, num_stages=2):
            ka = tl.load(KA + a * row + d)
            va = tl.load(VA + a * row + d)
            m, l, acc = row_of_a(q, ka, va, kb, vb, b <= i, m, l, acc, scale_log2, True)
    tl.store(O + heads[:, None] * D + d[None, :], (acc / l[:, None]).to(O.dtype.element_ty))


def forward(q, k1, k2, v1, v2, w1, w2):
    B, N, Hq, _ = q.shape
    Hkv = k1.shape[2]
    warps = 4 if Hq // Hkv <= 64 else 8
    ka, va, wa, kb, vb, wb = (k1, v1, w1, k2, v2, w2) if w1 <= w2 else (k2, v2, w2, k1, v1, w1)
    o = torch.empty_like(q)
    forward_kernel[(N, B * Hkv)](q, ka, va, kb, vb, o, N, Hkv, wa, wb, math.log2(math.e) / math.sqrt(D),
                                 G=Hq // Hkv, D=D, TILE=TILE, num_warps=warps)
    return o


def reference(q, k1, k2, v1, v2, w1, w2, i):
    """The outputs [B, Hq, D] of position i in float32."""
    groups = q.shape[2] // k1.shape[2]
    window = lambda x, w: x[:, max(0, i - w + 1):i + 1].repeat_interleave(groups, 2).float()
    logits = torch.einsum("bhd,bjhd,bkhd->bhjk", q[:, i].float(), window(k1, w1), window(k2, w2)) / math.sqrt(D)
    weights = logits.flatten(2).softmax(2).view_as(logits)
    return torch.einsum("bhjk,bjhd,bkhd->bhd", weights, window(v1, w1), window(v2, w2))


def check(o, inputs, w1, w2):
    N = o.shape[1]
    for i in sorted({0, 1, min(w1, w2) - 1, max(w1, w2), N // 2 + 1, N - 1} & set(range(N))):
        wanted = reference(*inputs, w1, w2, i)
        error = float((o[:, i].float() - wanted).norm() / wanted.norm())
        if not error <= TOLERANCE:
            raise ValueError(f"row {i} differs from float32 by {error:.2g}, more than {TOLERANCE:.2g}")


def pairs(N, w1, w2):
    return sum(min(i, w1) * min(i, w2) for i in range(1, N + 1))


def measure(N, Hq, Hkv, w1, w2, repeats):
    generator = torch.Generator(device="cuda").manual_seed(0)
    normal = lambda H: torch.randn(1, N, H, D, device="cuda", generator=generator, dtype=torch.float32).bfloat16()
    inputs = [normal(Hq)] + [normal(Hkv) for _ in range(4)]
    flops = 4 * D * Hq * pairs(N, w1, w2)
    run = lambda: forward(*inputs, w1, w2)
    check(run(), inputs, w1, w2)
    return flops / median_ms(run, repeats=repeats, warmup=1) / 1e9


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    emit(name="machine", gpu=torch.cuda.get_device_name(), torch=torch.__version__, triton=triton.__version__)
    for shape in options["shapes"]:
        try:
            found = dict(forward=measure(*shape, options.get("repeats", 5)))
        except Exception as error:  # a shape that this version of Triton doesn't compile says so, and the others are measured
            found = dict(error=f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}")
        emit(name="2-simplicial attention", shape=shape, **found)
