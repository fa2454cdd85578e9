"""What the measurements on a GPU share: a JSON line a figure, and medians by the GPU's own clock."""
import json
import statistics

import torch


def emit(**line):
    print(json.dumps(line), flush=True)


def median_ms(work, repeats=20, warmup=3):
    """Milliseconds of `work`, every call timed alone between events."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)
