# PyTorch's attention on the shapes of `./attention time`: medians by CUDA events, measured as there.
# Arguments: `all` for more shapes, names of back ends for these alone.
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
if any(name in sys.argv for name in BACKENDS):
    BACKENDS = {name: backend for name, backend in BACKENDS.items() if name in sys.argv}
SHAPES = [(1, 16384, 16, 128, True), (32, 1024, 12, 64, True), (64, 512, 4, 64, True)]
if "all" in sys.argv:
    SHAPES += [(1, 16384, 16, 128, False), (1, 16384, 16, 64, True)]


def median_of(call, repeats):
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) for start, end in pairs)[repeats // 2]


def median_ms(call):
    median_of(call, 3)
    repeats = max(20, int(100 / median_of(call, 3)))
    median_of(call, repeats)
    return median_of(call, repeats)


for B, T, H, D, causal in SHAPES:
    # As the model hands them over: slices of a fused [B, T, 3, H, D].
    fused = torch.randn(B, T, 3, H, D, device="cuda", dtype=torch.bfloat16)
    q, k, v = (fused[:, :, i].transpose(1, 2).detach().requires_grad_() for i in range(3))
    flops = 4 * D * T * T * B * H / (2 if causal else 1)
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                with torch.no_grad():
                    forward = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
                out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
                dout = torch.randn_like(out)
                backward = median_ms(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
            print(
                f"{name} B{B} T{T} H{H} D{D} causal{int(causal)}: forward {forward:.4f} ms {flops / forward * 1e-9:.0f} "
                f"TFLOP/s  backward {backward:.4f} ms {2.5 * flops / backward * 1e-9:.0f} TFLOP/s",
                flush=True,
            )
        except RuntimeError as error:
            print(f"{name} B{B} T{T} H{H} D{D}: {str(error)[:200]}", flush=True)
