"""PyTorch on the GPU: ceilings, fused AdamW, dot-product attention, a language-model step eager and compiled.

Takes one JSON argument {"tasks": ["ceilings", "adamw", "attention", "lm"], "smoke": false}; prints a JSON line a figure, medians by events.
The model is a Llama-style decoder (RMSNorm, rotary positions, SwiGLU, untied head), bfloat16 autocast, float32 weights.
"""
import json
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_timing import emit, median_ms

torch.backends.cuda.matmul.allow_tf32 = True
torch.set_float32_matmul_precision("high")


def ceilings(smoke):
    n = 1024 if smoke else 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    b = torch.randn_like(a)
    emit(name="matmul bf16", shape=f"{n}^3", value=2 * n**3 / median_ms(lambda: a @ b) / 1e9, unit="TFLOP/s")
    source = torch.randn(1 << (20 if smoke else 30), device="cuda")
    target = torch.empty_like(source)
    milliseconds = median_ms(lambda: target.copy_(source))
    emit(name="copy", shape=f"{source.numel()} float32", value=8 * source.numel() / milliseconds / 1e9, unit="TB/s")


def adamw(smoke):
    count, size = (2, 1 << 16) if smoke else (60, 1 << 24)
    params = [torch.randn(size, device="cuda").requires_grad_() for _ in range(count)]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True)
    milliseconds = median_ms(optimizer.step)
    emit(name="AdamW", shape=f"{count} x {size}", value=28 * count * size / milliseconds / 1e9, unit="TB/s", ms=milliseconds)


def attention(smoke):
    shapes = [(1, 256, 2, 64)] if smoke else [(1, 16384, 16, 128), (32, 1024, 12, 64), (64, 512, 4, 64)]
    for B, T, H, D in shapes:
        q, k, v = (torch.randn(B, H, T, D, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        flops = 4 * D * H * B * T * T / 2
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(backend):
                forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
                with torch.no_grad():
                    ms = median_ms(forward)
                out = forward()
                dout = torch.randn_like(out)
                back = median_ms(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
            emit(name="attention", peer=backend.name, shape=f"B {B}, T {T}, H {H}, D {D}", forward=flops / ms / 1e9,
                 backward=2.5 * flops / back / 1e9, unit="TFLOP/s")


class Block(nn.Module):
    def __init__(self, d, heads, ffn):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.up = nn.Linear(d, ffn, bias=False), nn.Linear(d, ffn, bias=False)
        self.down = nn.Linear(ffn, d, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))

        def rope(t):
            a, b = t.chunk(2, -1)
            return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(t.dtype)

        y = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        z = self.norm2(x)
        return x + self.down(F.silu(self.gate(z)) * self.up(z))


class Model(nn.Module):
    def __init__(self, layers, d, heads, ffn, vocabulary, length):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList(Block(d, heads, ffn) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(d), nn.Linear(d, vocabulary, bias=False)
        inverse = 1.0 / 10000 ** (torch.arange(0, d // heads, 2).float() / (d // heads))
        angles = torch.outer(torch.arange(length).float(), inverse)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), targets.flatten())


def lm(smoke):
    sizes = [dict(layers=1, d=64, heads=2, ffn=128, vocabulary=256, B=2, T=64)] if smoke else [
        dict(layers=4, d=256, heads=4, ffn=688, vocabulary=8192, B=64, T=512),
        dict(layers=12, d=768, heads=12, ffn=2048, vocabulary=50304, B=32, T=1024),
    ]
    for size in sizes:
        for compiled in (False, True):
            torch.manual_seed(0)
            B, T = size["B"], size["T"]
            model = Model(size["layers"], size["d"], size["heads"], size["ffn"], size["vocabulary"], T).cuda()
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
            run = torch.compile(model) if compiled else model
            tokens, targets = (torch.randint(size["vocabulary"], (B, T), device="cuda") for _ in range(2))

            def step():
                with torch.autocast("cuda", torch.bfloat16):
                    loss = run(tokens, targets)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            torch.cuda.reset_peak_memory_stats()
            milliseconds = median_ms(step, warmup=5)
            emit(name="lm", peer="torch.compile" if compiled else "PyTorch eager", **size, ms=milliseconds,
                 value=B * T / milliseconds * 1e3, unit="tokens/s", peakGiB=torch.cuda.max_memory_allocated() / 2**30)
            del model, optimizer, run
            torch.cuda.empty_cache()
            torch._dynamo.reset()


if __name__ == "__main__":
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    emit(name="machine", gpu=torch.cuda.get_device_name(), torch=torch.__version__)
    for task in options.get("tasks", ["ceilings", "adamw", "attention", "lm"]):
        {"ceilings": ceilings, "adamw": adamw, "attention": attention, "lm": lm}[task](options.get("smoke", False))
