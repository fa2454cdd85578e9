"""PyTorch on the CPU: matrix products, the GPT of lib/gpt.mjs (training and decoding) and AdamW. One JSON argument, JSON lines out.

Every figure is PyTorch's best: the fastest of the ways in which its users write the same thing (attention fused or plain, AdamW fused or
foreach), with its own choice of kernels.
"""

import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

options = json.loads(sys.argv[1])
threads = options["threads"]
torch.set_num_threads(threads)
has_fused_attention = hasattr(F, "scaled_dot_product_attention")
library = f"PyTorch {torch.__version__}"


def emit(**row):
    print(json.dumps(dict(library=library, threads=threads, **row)), flush=True)


def best_seconds(work, samples, sample_ms):
    work()
    start = time.perf_counter()
    work()
    count = max(1, int(sample_ms / 1e3 / max(time.perf_counter() - start, 1e-7)))
    best = math.inf
    for _ in range(samples):
        start = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, (time.perf_counter() - start) / count)
    return best


def sgemm(shapes, samples, sample_ms):
    for shape in shapes:
        m, n, k, ta, tb = (shape[name] for name in ("m", "n", "k", "ta", "tb"))
        a = torch.randn(k, m).T if ta else torch.randn(m, k)
        b = torch.randn(n, k).T if tb else torch.randn(k, n)
        seconds = best_seconds(lambda: a @ b, samples, sample_ms)
        emit(**shape, gflops=2 * m * n * k / seconds / 1e9)


def uniform(seed, count):
    """The first numbers of mulberry32, whose state is a counter."""
    mask = np.uint64(0xFFFFFFFF)
    state = (np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x6D2B79F5)) & mask
    t = ((state ^ (state >> np.uint64(15))) * (np.uint64(1) | state)) & mask
    t = ((t + (((t ^ (t >> np.uint64(7))) * (np.uint64(61) | t)) & mask)) & mask) ^ t
    return ((t ^ (t >> np.uint64(14))) & mask).astype(np.float64) / 4294967296


class Parameters:
    """Those of `initialParameters`, drawn in the same order."""

    def __init__(self, size):
        layers, d, T, vocab = (size[name] for name in ("layers", "d", "T", "vocab"))
        residual = 0.02 / math.sqrt(2 * layers)
        shapes = {"wte": ([vocab, d], 0.02), "wpe": ([T, d], 0.02)}
        for layer in range(layers):
            shapes[f"ln1.{layer}"] = ([d], None)
            shapes[f"qkv.{layer}"] = ([d, 3 * d], 0.02)
            shapes[f"proj.{layer}"] = ([d, d], residual)
            shapes[f"ln2.{layer}"] = ([d], None)
            shapes[f"fc.{layer}"] = ([d, 4 * d], 0.02)
            shapes[f"out.{layer}"] = ([4 * d, d], residual)
        shapes |= {"lnf": ([d], None), "head": ([d, vocab], 0.02)}
        numbers = uniform(1, 2 * sum(math.prod(shape) for shape, deviation in shapes.values() if deviation))
        self.tensors, used = {}, 0
        for name, (shape, deviation) in shapes.items():
            if deviation is None:
                data = np.ones(shape)
            else:
                count = math.prod(shape)
                u, v = numbers[used : used + 2 * count].reshape(count, 2).T
                used += 2 * count
                data = (deviation * np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * math.pi * v)).reshape(shape)
            self.tensors[name] = torch.nn.Parameter(torch.from_numpy(data.astype(np.float32)))

    def __getitem__(self, name):
        return self.tensors[name]


def batch(step, size):
    B, T, vocab = (size[name] for name in ("B", "T", "vocab"))
    numbers = iter(uniform(1000 + step, 3 * B * (T + 1)))
    tokens, targets = torch.empty(B, T, dtype=torch.long), torch.empty(B, T, dtype=torch.long)
    for b in range(B):
        token = int(next(numbers) * vocab)
        for t in range(T):
            tokens[b, t] = token
            token = int(next(numbers) * vocab) if next(numbers) < 0.1 else (5 * token + 17) % vocab
            targets[b, t] = token
    return tokens, targets


def norm(x, weight):
    return F.layer_norm(x, weight.shape, weight, None, 1e-5)


def plain_attention(q, k, v, mask):
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask).softmax(-1) @ v


def training(size, warmup, steps):
    layers, d, heads, B, T, vocab = (size[name] for name in ("layers", "d", "heads", "B", "T", "vocab"))
    mask = torch.full((T, T), -math.inf).triu(1)

    def loss_of(p, tokens, targets, fused):
        h = p["wte"][tokens] + p["wpe"]
        for layer in range(layers):
            qkv = norm(h, p[f"ln1.{layer}"]) @ p[f"qkv.{layer}"]
            q, k, v = qkv.view(B, T, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True) if fused else plain_attention(q, k, v, mask)
            h = h + a.transpose(1, 2).reshape(B, T, d) @ p[f"proj.{layer}"]
            hidden = F.gelu(norm(h, p[f"ln2.{layer}"]) @ p[f"fc.{layer}"], approximate="tanh")
            h = h + hidden @ p[f"out.{layer}"]
        return F.cross_entropy((norm(h, p["lnf"]) @ p["head"]).view(-1, vocab), targets.view(-1))

    for fused in (True, False) if has_fused_attention else (False,):
        p = Parameters(size)
        optimizer = adamw(p.tensors.values(), size["lr"])
        seconds, losses = [], []
        for i in range(warmup + steps):
            tokens, targets = batch(i, size)
            start = time.perf_counter()
            loss = loss_of(p, tokens, targets, fused)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            seconds.append(time.perf_counter() - start)
        best = min(seconds[warmup:])
        emit(attention="fused" if fused else "plain", stepMs=1e3 * best, tokensPerSecond=B * T / best, losses=losses[:4])


def adamw(parameters, lr):
    """Without decay, as the other peers train; fused where this PyTorch has it for the CPU."""
    settings = dict(lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    parameters = list(parameters)
    try:
        return torch.optim.AdamW(parameters, fused=True, **settings)
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(parameters, foreach=True, **settings)


@torch.inference_mode()
def decoding(size, prompt, tokens, rounds):
    layers, d, heads, vocab = (size[name] for name in ("layers", "d", "heads", "vocab"))
    p = Parameters(size)
    D = d // heads
    keys, values = (torch.zeros(layers, 1, heads, size["T"], D) for _ in range(2))

    def step(token, position):
        h = p["wte"][token] + p["wpe"][position]
        for layer in range(layers):
            q, k, v = (norm(h, p[f"ln1.{layer}"]) @ p[f"qkv.{layer}"]).view(3, heads, D)
            keys[layer, 0, :, position] = k
            values[layer, 0, :, position] = v
            q, k, v = q.view(1, heads, 1, D), keys[layer, :, :, : position + 1], values[layer, :, :, : position + 1]
            if has_fused_attention:
                a = F.scaled_dot_product_attention(q, k, v)
            else:
                a = (q @ k.transpose(-1, -2) / math.sqrt(D)).softmax(-1) @ v
            h = h + a.reshape(d) @ p[f"proj.{layer}"]
            h = h + F.gelu(norm(h, p[f"ln2.{layer}"]) @ p[f"fc.{layer}"], approximate="tanh") @ p[f"out.{layer}"]
        return int((norm(h, p["lnf"]) @ p["head"]).argmax())

    given = batch(0, size)[0].flatten()[:prompt].tolist()
    best, generated = math.inf, []
    for _ in range(rounds):
        for position, token in enumerate(given):
            token = step(token, position)  # reading the prompt is not decoding
        generated = [token]
        start = time.perf_counter()
        for position in range(prompt, prompt + tokens):
            generated.append(step(generated[-1], position))
        best = min(best, time.perf_counter() - start)
    emit(tokensPerSecond=tokens / best, generated=generated)


def optimizer(sizes, samples):
    parameters = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    count = sum(parameter.numel() for parameter in parameters)
    for kind in ("fused", "foreach"):
        try:
            step = torch.optim.AdamW(parameters, lr=1e-3, **{kind: True}).step
            step()
        except (RuntimeError, TypeError) as error:
            print(f"AdamW({kind}=True): {error}", file=sys.stderr)
            continue
        emit(kind=kind, n=count, ms=1e3 * best_seconds(step, samples, 1))


dict(sgemm=sgemm, training=training, decoding=decoding, optimizer=optimizer)[options["task"]](**options["arguments"])
