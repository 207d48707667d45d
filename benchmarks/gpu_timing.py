"""Times of what runs on a device: events on a GPU, the wall clock where there is none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# Bytes a second of the memory, by the vendors' data sheets and under torch's names. Anything else
# gets no percentage: a wrong ceiling is worse than none.
BANDWIDTH = {
    "NVIDIA H200": 4.8e12,
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA H100 PCIe": 2.0e12,
    "NVIDIA H100 NVL": 3.9e12,
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    "NVIDIA A100 80GB PCIe": 1.935e12,
    "NVIDIA A100-SXM4-40GB": 1.555e12,
    "NVIDIA A100-PCIE-40GB": 1.555e12,
    "NVIDIA L40S": 0.864e12,
    "NVIDIA L4": 0.3e12,
    "NVIDIA GeForce RTX 4090": 1.008e12,
    "NVIDIA GeForce RTX 3090": 0.936e12,
}
FLUSH_BYTES = 256 << 20  # several times the second-level cache of any of them

Run = Callable[[], object]


class Clock:
    """Times runs on one device, several in turn, so that a drift of the clocks meets them all."""

    def __init__(self, device: torch.device, *, rounds: int, warm: int) -> None:
        self.device = device
        self.rounds, self.warm = rounds, warm
        self.on_gpu = device.type == "cuda"
        self._flush: torch.Tensor | None = None

    def in_turn(
        self, runs: Mapping[str, Run], *, before: Callable[[str], object] | None = None
    ) -> dict[str, list[float]]:
        """µs of each run, A B A B …; ``before`` gets its name, untimed, ahead of every one.

        On a GPU nothing waits for the host between two runs, so a run must give the device more to
        do than the host needs to ask for it: a graph, or a long kernel.
        """
        times: dict[str, list[Any]] = {name: [] for name in runs}
        for turn in range(-self.warm, self.rounds):
            for name, run in runs.items():
                if before is not None:
                    before(name)
                took = self._one(run)
                if turn >= 0:  # compiled, loaded, caches of allocators filled
                    times[name].append(took)
        if not self.on_gpu:
            return times
        torch.cuda.synchronize()
        return {
            name: [begin.elapsed_time(end) * 1e3 for begin, end in pairs]
            for name, pairs in times.items()
        }

    def _one(self, run: Run) -> Any:
        if not self.on_gpu:
            began = time.perf_counter()
            run()
            return (time.perf_counter() - began) * 1e6
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        return begin, end

    def calls(self, run: Run, count: int) -> float:
        """µs of wall clock a call, ``count`` of them asked for one after another."""
        if self.warm:
            run()
        self.wait()
        began = time.perf_counter()
        for _ in range(count):
            run()
        self.wait()
        return (time.perf_counter() - began) / count * 1e6

    def captured(self, run: Run) -> Run:
        """``run`` as a graph, which leaves out what the host needs for a launch; else itself."""
        if not self.on_gpu:
            return run
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = run()  # the outputs' memory stays theirs

        def replay(kept: object = kept) -> None:
            graph.replay()

        return replay

    def flush(self, name: str = "") -> None:
        """Push what the last run left out of the second-level cache; fits ``before``."""
        if not self.on_gpu:
            return
        if self._flush is None:
            self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device)
        self._flush.zero_()

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def copy_bandwidth(self, size: int) -> float:
        """Bytes a second that a copy of ``size`` bytes reads and writes."""
        source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        times = self.in_turn({"copy": lambda: target.copy_(source)})["copy"]
        return 2 * size / (statistics.median(times) * 1e-6)


def spread(times: Sequence[float], per: int = 1) -> dict[str, Any]:
    """Median, 10th and 90th percentile of ``times`` in µs, each divided by ``per``."""
    return {
        "us": round(statistics.median(times) / per, 3),
        "us_p10": round(percentile(times, 0.1) / per, 3),
        "us_p90": round(percentile(times, 0.9) / per, 3),
        "samples": len(times),
    }


def versus(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """How many times ``base`` the ``times`` are: of the medians, and the spread over the rounds."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    return {
        "ratio": round(statistics.median(times) / statistics.median(base), 4),
        "ratio_p10": round(percentile(ratios, 0.1), 4),
        "ratio_p90": round(percentile(ratios, 0.9), 4),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the others lie, interpolated."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
