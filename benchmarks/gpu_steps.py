"""Whole models: decode steps, what a user waits for, first tokens, and transformers'."""

from __future__ import annotations

import functools
import importlib
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from gpu_lab import Lab, frames, keys_read, plan, weights_read
from gpu_runner import Job, Row
from gpu_timing import spread, versus

from minboost.decode import Decoder
from minboost.device_step import DeviceStep
from minboost.ops import Frame
from minboost.sampling import Sampler, Sampling


def step_jobs(lab: Lab, group: str, shape: str, batch: int) -> list[Job]:
    """The step on the device and, where the prompt is not too long, as a user sees it."""
    jobs = []
    for context in lab.sizes.steps[shape]:
        name = f"{shape}, batch {batch}, context {context}"
        part = functools.partial(_step, shape, batch, context)
        jobs.append(Job(group, name, 12, part))
        if context <= 8192:
            part = functools.partial(_waited, shape, batch, context)
            jobs.append(Job(group, f"{name}, as a user sees it", 8, part))
    return jobs


def first_token_jobs(lab: Lab) -> list[Job]:
    jobs = [
        Job("first-token", f"{shape}, {n} tokens", 10, functools.partial(_first, shape, n))
        for n in lab.sizes.first_token
        for shape in lab.sizes.steps
    ]
    length = max(lab.sizes.first_token)
    memory = functools.partial(_memory, "Llama-3.2-1B", length)
    return [Job("first-token", "memory of the boost", 6, memory), *jobs]


def transformers_jobs(lab: Lab, group: str, cache: str) -> list[Job]:
    """With a "dynamic" cache, or a "static" one and compiled, which takes a minute or more."""
    context = lab.sizes.steps["Llama-3.2-1B"][0]
    return [
        Job(
            group,
            f"{shape}, sdpa, {cache} cache",
            25 if cache == "dynamic" else 75,
            functools.partial(_transformers, shape, context, cache),
        )
        for shape in lab.sizes.steps
    ]


def _step(shape: str, batch: int, context: int, lab: Lab) -> Iterator[Row]:
    """The captured step, replayed at one position under each boost in turn."""
    model = lab.model(shape)
    cache = lab.cache(model.config, batch, context + 8)
    framed = frames(model, cache, batch, context)
    sampler = Sampler(
        [Sampling()] * batch,
        [[]] * batch,
        vocab_size=model.config.vocab_size,
        device=lab.device,
    )
    step = DeviceStep(model, batch, sampler.kind)
    tokens = torch.ones(batch, dtype=torch.int64, device=lab.device)
    graph = lab.clock.on_gpu
    step.begin(framed["none"], [context] * batch, tokens, sampler, graph=graph)

    def before(name: str) -> None:
        """What ``begin`` does, without a wait for the device."""
        assert isinstance(step.frame, Frame)
        step.frame.table.copy_(framed[name].table)
        step.positions.fill_(context)

    # A step's own inputs have to lie on the device: no draw, greedy.
    times = lab.clock.in_turn({name: lambda: step.run(None) for name in framed}, before=before)
    moved = weights_read(model) + keys_read(model.config, batch, context + 1, lab.dtype)
    for name in framed:
        row = {"model": shape, "batch": batch, "context": context, "boost": name}
        row |= {"timed": "graph" if graph else "eager", **spread(times[name])}
        row |= {"bytes": moved, **lab.percent(moved, row["us"])}
        if name != "none":
            row |= versus(times[name], times["none"])
        yield row


def _waited(shape: str, batch: int, context: int, lab: Lab) -> Iterator[Row]:
    """Wall clock between two tokens in the reader's hands, from a prompt of that length."""
    model = lab.model(shape)
    prompts = lab.prompts(model.config, [context] * batch, seed=1)
    moved = weights_read(model) + keys_read(model.config, batch, context, lab.dtype)
    count = lab.sizes.new_tokens + lab.sizes.warm_tokens + 1
    for name, spans_ in (("none", 0), ("one span", 1)):
        boost = plan(spans_, model.config, batch, context, lab.device)
        decoder = Decoder(model, prompts, max_new_tokens=count, plan=boost)
        ticks = []
        for _ in decoder.tokens([Sampling()] * batch):
            ticks.append(time.perf_counter())
        gaps = _gaps(ticks, lab.sizes.warm_tokens)
        row = {"model": shape, "batch": batch, "context": context, "boost": name}
        row |= {"timed": "wall clock", **spread(gaps)}
        # The mean is what a whole answer takes; single waits are shifted by the queue.
        row["us_mean"] = round(statistics.mean(gaps), 3)
        yield {**row, "bytes": moved, **lab.percent(moved, row["us_mean"])}


def _gaps(ticks: list[float], warm: int) -> list[float]:
    """µs between the ticks after the first ``warm``."""
    return [(b - a) * 1e6 for a, b in itertools.pairwise(ticks[warm:])]


def _first(shape: str, length: int, lab: Lab) -> Iterator[Row]:
    """From the prompt's ids to the first new token's."""
    model = lab.model(shape)
    prompts = lab.prompts(model.config, [length], seed=2)
    boosts = {"none": 0, "one span": 1}
    times: dict[str, list[float]] = {name: [] for name in boosts}
    rounds = max(1, lab.clock.rounds // 2)
    for turn in range(-lab.clock.warm, rounds):
        for name, count in boosts.items():
            lab.clock.wait()
            began = time.perf_counter()
            boost = plan(count, model.config, 1, length, lab.device)
            decoder = Decoder(model, prompts, max_new_tokens=8, plan=boost)
            next(decoder.tokens([Sampling()]))
            if turn >= 0:
                times[name].append((time.perf_counter() - began) * 1e6)
    for name in boosts:
        row = {"model": shape, "tokens": length, "boost": name, **spread(times[name])}
        if name != "none":
            row |= versus(times[name], times["none"])
        yield row


def _memory(shape: str, length: int, lab: Lab) -> Iterator[Row]:
    """The peak of a prefill and its first steps, over what the weights take."""
    if not lab.clock.on_gpu:
        yield {"skipped": "nobody counts the bytes without a GPU"}
        return
    model = lab.model(shape)
    prompts = lab.prompts(model.config, [length], seed=2)
    for name, count in (("none", 0), ("one span", 1), ("none", 0), ("one span", 1)):
        lab.tidy()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        boost = plan(count, model.config, 1, length, lab.device)
        decoder = Decoder(model, prompts, max_new_tokens=8, plan=boost)
        for _ in decoder.tokens([Sampling()]):
            pass
        peak = torch.cuda.max_memory_allocated() - before
        del decoder
        yield {"model": shape, "tokens": length, "boost": name, "peak_bytes": peak}


class Ticks:
    """The times at which ``generate`` hands over tokens: all that it asks of a streamer."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None: ...


def _transformers(shape: str, context: int, cache: str, lab: Lab) -> Iterator[Row]:
    """The same shape with random weights in transformers, greedy, through ``generate``."""
    about = {"model": shape, "batch": 1, "context": context, "cache": cache}
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        yield {**about, "skipped": str(error)}
        return
    config = library.LlamaConfig(**lab.raw(shape), attn_implementation="sdpa")
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    with torch.device(lab.device):
        model = library.LlamaForCausalLM(config)
    model = model.to(lab.dtype).eval()
    assert model.config._attn_implementation == "sdpa"
    model.generation_config.eos_token_id = None
    ids = torch.tensor(lab.prompts(lab.config(shape), [context], seed=1), device=lab.device)
    count = lab.sizes.new_tokens + lab.sizes.warm_tokens + 1
    more: dict[str, Any] = {}
    if cache == "static":  # which generate compiles by itself, on a GPU, as its guide recommends
        more["cache_implementation"] = "static"
        if lab.clock.on_gpu:
            more["compile_config"] = library.CompileConfig(mode="reduce-overhead")
    for _ in range(1 if lab.dry else 2):  # the first compiles
        ticks = Ticks()
        lab.clock.wait()
        began = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            streamer=ticks,
            **more,
        )
        lab.clock.wait()
    kept = ticks.times[1:]  # the first is the prompt, handed over before the prefill
    gaps = _gaps(kept, lab.sizes.warm_tokens)
    row = {**about, "timed": "wall clock", **spread(gaps)}
    row["us_mean"] = round(statistics.mean(gaps), 3)
    row["first_token_us"] = round((kept[0] - began) * 1e6, 1)
    if cache == "static":
        row["compiled"] = hasattr(model, "_compiled_call")  # or generate has decided against it
    yield row
