"""One decode step that never leaves the device: token in, token out, captured as one CUDA graph.

Nothing in it depends on host values: tokens, positions, the frame (cache, spans, strengths) and
the sampling settings lie in tensors that keep their place. So one capture serves every run of its
batch size, kind of sampling and kind of frame, whatever its boost, spans and lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .impl import on
from .model import Transformer
from .ops import Frame
from .sampling import Kind, Sampler, Sampling


class DeviceStep:
    """The static tensors of one step, and the graph that was captured on them.

    ``begin`` takes over a run, then each ``run`` is one step: the tokens (B,) that it leaves in
    ``tokens`` are its own next input. ``captures`` counts the captures.
    """

    def __init__(self, model: Transformer, batch: int, kind: Kind) -> None:
        device = model.device
        self.model = model
        self.tokens = torch.zeros(batch, dtype=torch.int64, device=device)
        self.positions = torch.zeros(batch, dtype=torch.int64, device=device)
        vocab_size = model.config.vocab_size
        self.sampler = Sampler(
            [Sampling()] * batch,
            [[]] * batch,
            vocab_size=vocab_size,
            device=device,
            kind=kind,
            greedy=model.ops.greedy(batch, device),
        )
        self.frame: Frame | None = None
        self.captures = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._replays = False  # whether this run goes through the graph
        self._stream: torch.cuda.Stream | None = None  # the run's

    def begin(
        self,
        frame: Frame,
        positions: Sequence[int],
        tokens: Tensor,
        sampler: Sampler,
        *,
        graph: bool,
    ) -> None:
        """Continue a run after its prefill; with ``graph``, capture the step if none has been."""
        state = (frame, torch.tensor(positions), tokens, sampler)
        self._take(*state)
        self._replays = graph
        if self.tokens.device.type == "cuda":
            self._stream = torch.cuda.current_stream(self.tokens.device)
        if graph and self._graph is None:
            with on(self.tokens.device):
                self._capture()
            self._take(*state)  # the warm-up has gone on from here

    def run(self, draws: Tensor | None) -> Tensor:
        """One step with the sampler's ``draws``; returns ``tokens``, which the next overwrites."""
        if draws is not None:
            self.sampler.uniform.copy_(draws, non_blocking=True)
        with on(self.tokens.device):
            if self._replays:
                assert self._graph is not None
                self._graph.replay()
            else:
                self._advance()
        return self.tokens

    def _advance(self) -> None:
        out = self.model(self.tokens[:, None], start=self.positions, frame=self.frame)
        self.tokens.copy_(self.sampler.pick(self.model.logits(out.hidden)[:, 0]))
        self.positions += 1

    def _take(self, frame: Frame, positions: Tensor, tokens: Tensor, sampler: Sampler) -> None:
        if self.frame is None:
            self.frame = frame.twin()
        # The table's addresses stay valid as long as the run holds its own frame.
        self.frame.copy_(frame)
        self.positions.copy_(positions)
        self.tokens.copy_(tokens)
        self.sampler.copy_(sampler)

    def end(self) -> None:
        """Wait for what the run has under way: its last step was one more than it needed."""
        if self._stream is not None:
            self._stream.synchronize()

    def _capture(self) -> None:
        # A stream of the step's own: libraries keep a workspace a stream, and another graph that
        # goes away takes that of its stream along.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._advance()  # once outside of the graph: kernels are compiled, libraries set up
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The capture registers the random generator's state; made in inference mode, it could not
        # be used outside of it any more.
        with (
            torch.inference_mode(False),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            torch.inference_mode(),
        ):
            self._advance()
        self._graph = graph
        self.captures += 1


@contextmanager
def borrowed_step(model: Transformer, batch: int, kind: Kind, frame: Frame) -> Iterator[DeviceStep]:
    """A step for runs of the frame's kind that no other run is using, kept for the next one."""
    # Weights that have been replaced or moved need new captures; the old ones would read freed
    # memory.
    weights = tuple(parameter.data_ptr() for parameter in model.parameters())
    for other in [key for key in model.device_steps if key[0] != weights]:
        del model.device_steps[other]
    free = model.device_steps.setdefault((weights, batch, kind, frame.kind), [])
    try:
        step = free.pop()
    except IndexError:
        step = DeviceStep(model, batch, kind)
    try:
        yield step
    finally:
        step.end()
        free.append(step)


def on_its_way(tokens: Tensor) -> Callable[[], list[int]]:
    """Begin to copy ``tokens`` (B,) to the host; what is returned waits for them."""
    if tokens.device.type != "cuda":
        return tokens.clone().tolist
    with on(tokens.device):
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()

    def wait() -> list[int]:
        there.synchronize()
        return list(host.tolist())

    return wait
