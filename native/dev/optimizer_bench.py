"""Times torch's fused AdamW on the arrays of optimizer_bench.cu."""
import torch


def main() -> None:
    params = [torch.randn(1 << 24, device="cuda") for _ in range(60)]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.AdamW(params, lr=1e-3, fused=True)
    times = []
    for i in range(13):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        optimizer.step()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end))
    median = sorted(times)[len(times) // 2]
    size = sum(p.numel() for p in params)
    print(f"torch {torch.__version__} fused AdamW: {median:.3f} ms, {28 * size / median * 1e-9:.3f} TB/s")


if __name__ == "__main__":
    main()
