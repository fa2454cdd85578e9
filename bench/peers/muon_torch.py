"""PyTorch's Muon and fused AdamW on the weights of a language model.

Takes one JSON argument {"layers": 12, "d": 768, "ffn": 2048, "words": 50304, "device": "cuda", "repeats": 5}; prints a JSON line a figure:
milliseconds a step from the first call of a run of steps until all are done.
"""
import json
import statistics
import sys
import time

import torch

options = json.loads(sys.argv[1])
layers, d, ffn, words = (options[key] for key in ("layers", "d", "ffn", "words"))
device = options.get("device", "cuda")
if not hasattr(torch.optim, "Muon"):
    print(f"PyTorch {torch.__version__} has no Muon: its figures are left out.", file=sys.stderr)
    sys.exit(0)


def finish():
    if device == "cuda":
        torch.cuda.synchronize()


def parameter(*shape):
    p = (0.02 * torch.randn(*shape, device=device)).requires_grad_()
    p.grad = 0.02 * torch.randn_like(p)
    return p


hidden = [
    parameter(*shape)
    for _ in range(layers)
    for shape in [(d, d)] * 4 + [(ffn, d)] * 2 + [(d, ffn)]
]
embedding = [parameter(words, d)]


def measure(method, optimizers, length=5):
    def steps(count):
        for _ in range(count):
            for optimizer in optimizers:
                optimizer.step()
        finish()

    steps(3)
    times = []
    for _ in range(options.get("repeats", 5)):
        start = time.perf_counter()
        steps(length)
        times.append(1e3 * (time.perf_counter() - start) / length)
    print(json.dumps({"method": method, "ms": statistics.median(times), "bestMs": min(times)}), flush=True)


muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.0)
adamw = torch.optim.AdamW(embedding, lr=3e-4, fused=True)
measure("torch.optim.Muon", [muon])
measure("torch.optim.AdamW(fused), the embedding", [adamw])
measure("torch.optim.Muon and AdamW(fused)", [muon, adamw])
