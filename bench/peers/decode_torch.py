"""PyTorch on the GPU: the prompt and the next tokens of a language model, with a static cache and CUDA graphs.

Takes one JSON argument {"model": {...}, "prompt": 512, "tokens": 256, "batches": [8], "prefill": 4096}; prints a JSON line a figure, of one text, of
so many at a time and of the prompt. The model is that of torch_gpu.py in bfloat16; a step is compiled with mode="reduce-overhead", Inductor writing
its attention (faster there than the library's for one query), and the device goes on with the likeliest token by itself. The prompt goes through the
library's causal attention.
"""
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_timing import emit, median_ms

torch._inductor.config.coordinate_descent_tuning = True
torch._inductor.config.fx_graph_cache = True


class Block(nn.Module):
    def __init__(self, d, heads, ffn, room, batch):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.up = nn.Linear(d, ffn, bias=False), nn.Linear(d, ffn, bias=False)
        self.down = nn.Linear(ffn, d, bias=False)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(batch, heads, room, d // heads))

    def forward(self, x, positions, cos, sin, mask):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))

        def rope(t):
            a, b = t.float().chunk(2, -1)
            return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(t.dtype)

        q, k = rope(q), rope(k)
        self.keys[:, :, positions] = k
        self.values[:, :, positions] = v
        if mask is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        z = self.norm2(x)
        return x + self.down(F.silu(self.gate(z)) * self.up(z))


class Model(nn.Module):
    def __init__(self, layers, d, heads, ffn, vocabulary, room, batch):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList(Block(d, heads, ffn, room, batch) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(d), nn.Linear(d, vocabulary, bias=False)
        inverse = 1.0 / 10000 ** (torch.arange(0, d // heads, 2).float() / (d // heads))
        self.angles = torch.outer(torch.arange(room).float(), inverse).cuda()
        self.visible = torch.ones(room, room, dtype=torch.bool, device="cuda").tril()

    def forward(self, tokens, positions, prefill):
        x = self.embed(tokens)
        angles = self.angles[positions]
        mask = None if prefill else self.visible[None, None, positions]
        for block in self.blocks:
            x = block(x, positions, angles.cos(), angles.sin(), mask)
        return self.head(self.norm(x[:, -1:]))


def build(model, room, batch=1):
    torch.manual_seed(0)
    return Model(**model, room=room, batch=batch).cuda().to(torch.bfloat16).eval()


@torch.inference_mode()
def decode(options):
    for batch in (1, *options["batches"]):
        torch._dynamo.reset()
        decode_together(options, batch)


def decode_together(options, batch):
    prompt, count = options["prompt"], options["tokens"]
    model = build(options["model"], prompt + count, batch)
    tokens = torch.randint(options["model"]["vocabulary"], (batch, prompt), device="cuda")

    def step(token, position):
        with sdpa_kernel(SDPBackend.MATH):
            return model(token, position, False)[:, -1].argmax(-1, keepdim=True)

    compiled = torch.compile(step, mode="reduce-overhead", fullgraph=True)

    def write():
        token = model(tokens, torch.arange(prompt, device="cuda"), True)[:, -1].argmax(-1, keepdim=True)
        position = torch.tensor([prompt], device="cuda")
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count - 1):
            token = compiled(token, position).clone()
            position += 1
        token.tolist()
        return (time.perf_counter() - begun) / (count - 1)

    for _ in range(2):
        write()
    seconds = sorted(write() for _ in range(5))[2]
    name = "decode" if batch == 1 else f"decode of {batch} texts"
    emit(name=name, value=batch / seconds, unit="tokens/s", ms=1e3 * seconds)


@torch.inference_mode()
def prefill(options):
    length = options["prefill"]
    model = build(options["model"], length)
    tokens = torch.randint(options["model"]["vocabulary"], (1, length), device="cuda")
    positions = torch.arange(length, device="cuda")
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        torch._dynamo.reset()
        with sdpa_kernel(backend):
            compiled = torch.compile(lambda t, p: model(t, p, True), mode="reduce-overhead", fullgraph=True)
            milliseconds = median_ms(lambda: compiled(tokens, positions), warmup=4)
        emit(name="prefill", peer=backend.name, value=1e3 * length / milliseconds, unit="tokens/s", ms=milliseconds)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    emit(name="machine", gpu=torch.cuda.get_device_name(), torch=torch.__version__)
    for task in options.get("tasks", ["decode", "prefill"]):
        {"decode": decode, "prefill": prefill}[task](options)
