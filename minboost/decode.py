"""Prefill and decode: prompts in, one token a sequence and step out, through the KV cache."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from .cache import KVCache
from .device_step import borrowed_step, on_its_way
from .model import Output, Transformer
from .ops import Frame
from .plan import Plan
from .sampling import Sampler, Sampling

PREFILL_TOKENS = {"cpu": 1 << 12}
"""Tokens of a batch, padding included, that prefill takes at a time: on a CPU, what a few more
products leave of it still lies in the cache."""
PREFILL_CHUNK = {"cpu": 1 << 10}
"""Tokens of one prompt that prefill takes at a time, so that what it needs beside the KV cache does
not grow with the prompt. Prompts that are longer go one by one."""
Tokens = Generator[list[int], Sequence[bool] | None, None]


class Decoder:
    """One batch on its way: ``prefill`` once, then ``step`` with the tokens that were chosen.

    Sequences of unequal length are padded on the right for prefill and then each continues at
    its own position. The plan acts in prefill and in every step. ``tokens`` does it all, and
    chooses the tokens.
    """

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        plan: Plan | None = None,
    ) -> None:
        self.model = model
        self.plan = plan
        self.prompts = prompts
        self.max_new_tokens = max_new_tokens
        self.positions = [len(ids) for ids in prompts]  # where each sequence writes next
        self.rows = list(range(len(prompts)))  # the sequences that the cache still holds
        self.device = model.device
        self.cache = KVCache(
            model.config,
            batch=len(prompts),
            length=max(self.positions) + max_new_tokens,
            device=model.device,
            dtype=model.dtype,
        )
        self.frame = model.ops.frame(self.cache, plan, model.config.num_attention_heads)
        self.row = None
        if model.row is not None and len(prompts) == 1:
            self.row = model.row.start(model, self.cache, plan)

    @torch.inference_mode()
    def prefill(self, *, return_mass: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run all prompts.

        Returns:
            The logits (B, V) float32 after each prompt's last token, on the model's device, and,
            if asked for, the mass (L, B, H, N) of that token's attention on the plan's spans.
        """
        longest, batch = max(self.positions), len(self.prompts)
        chunk = PREFILL_CHUNK.get(self.device.type, longest)
        at_a_time = max(1, PREFILL_TOKENS.get(self.device.type, batch * longest) // longest)
        outs = []
        for rows in torch.split(torch.arange(batch), 1 if longest > chunk else at_a_time):
            whole = len(rows) == batch
            part = self._prefill_chunks if longest > chunk else self._prefill_rows
            outs.append(
                part(
                    [self.prompts[row] for row in rows.tolist()],
                    self.cache if whole else self.cache.part(rows),
                    self.plan if whole or self.plan is None else self.plan.of_rows(rows),
                    return_mass,
                )
            )
        hidden = torch.cat([out.hidden for out in outs])
        masses = [out.mass[:, :, :, 0] for out in outs if out.mass is not None]
        return self.model.logits(hidden)[:, 0], torch.cat(masses, dim=1) if masses else None

    def _prefill_rows(
        self,
        prompts: Sequence[Sequence[int]],
        cache: KVCache,
        plan: Plan | None,
        return_mass: bool,
    ) -> Output:
        """Prompts side by side, each whole."""
        lengths = [len(ids) for ids in prompts]
        padded = [list(ids) + [0] * (max(lengths) - len(ids)) for ids in prompts]
        ids = torch.tensor(padded, device=self.device)
        last = torch.tensor(lengths, device=self.device) - 1
        out: Output = self.model(ids, cache=cache, plan=plan, last=last, return_mass=return_mass)
        return out

    def _prefill_chunks(
        self,
        prompts: Sequence[Sequence[int]],
        cache: KVCache,
        plan: Plan | None,
        return_mass: bool,
    ) -> Output:
        """One prompt, a chunk after the other."""
        ((*ids,),) = prompts
        end, size = len(ids), PREFILL_CHUNK[self.device.type]
        every = torch.tensor([ids], device=self.device)
        for start in range(0, end, size):
            stop = min(start + size, end)
            # Where the rope's angles follow a sequence's length, it is that of the whole prompt.
            last = torch.tensor([end - 1 - start], device=self.device)
            x, step = self.model.begin(
                every[:, start:stop], cache=cache, start=start, keys=stop, plan=plan, last=last
            )
            out = self.model.blocks(
                x,
                step,
                return_mass=return_mass and stop == end,
                rows=range(stop - start - 1, stop - start),
            )
        return Output(out.hidden[:, -1:], out.mass)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each sequence; the logits (B, V) float32 that follow.

        Those of a sequence that was dropped are zeros.
        """
        if self.row is not None:
            logits = self.row.step(tokens[0], self.positions[0])[None]
            self.positions[0] += 1
            return logits
        ids = torch.tensor([tokens[row] for row in self.rows], device=self.device)[:, None]
        at = [self.positions[row] for row in self.rows]
        positions = torch.tensor(at, device=self.device)
        if self.frame is not None:
            out = self.model(ids, start=positions, frame=self.frame)
        else:
            even = len(set(at)) == 1
            out = self.model(
                ids,
                cache=self.cache,
                # One position for all is the cheaper path: keys are sliced, not masked.
                start=at[0] if even else positions,
                keys=max(at) + 1,
                plan=self.plan,
            )
        self.positions = [position + 1 for position in self.positions]
        logits = self.model.logits(out.hidden)[:, 0]
        if len(self.rows) == len(tokens):
            return logits
        full = logits.new_zeros(len(tokens), logits.shape[1])
        full[self.rows] = logits
        return full

    def drop(self, live: Sequence[bool]) -> None:
        """Take the sequences that are not ``live`` out of cache and plan, once half have ended.

        Not with a frame, whose kernels hold on to where the cache lies.
        """
        kept = [row for row in self.rows if live[row]]
        if self.frame is not None or not kept or 2 * len(kept) > len(self.rows):
            return
        index = torch.tensor([self.rows.index(row) for row in kept], device=self.device)
        self.cache.keep(index)
        self.plan = None if self.plan is None else self.plan.of_rows(index)
        self.rows = kept

    def tokens(self, samplings: Sequence[Sampling], *, graph: bool = True) -> Tokens:
        """Prefill, then the tokens of step after step, ``max_new_tokens`` of them.

        The reader may send which sequences are still live; the tokens of others mean nothing then.

        With a frame, tokens are chosen and fed back on the device, one step ahead of the reader;
        on CUDA such a step is one captured graph, unless ``graph`` is off. A token is BROKEN
        where the logits were not finite.
        """
        if self.frame is None:
            return self._in_turn(samplings)
        return self._ahead(samplings, self.frame, graph and self.device.type == "cuda")

    @torch.inference_mode()
    def _in_turn(self, samplings: Sequence[Sampling]) -> Tokens:
        """The reader has each token before the next step begins; tokens are chosen on the CPU."""
        sampler = Sampler(samplings, self.prompts, vocab_size=self.model.config.vocab_size)
        logits, _ = self.prefill()
        for _ in range(self.max_new_tokens - 1):
            tokens = sampler.pick(logits.cpu(), sampler.draws()).tolist()
            live = yield tokens
            if live is not None:
                self.drop(live)
            logits = self.step([max(token, 0) for token in tokens])
        yield sampler.pick(logits.cpu(), sampler.draws()).tolist()

    @torch.inference_mode()
    def _ahead(self, samplings: Sequence[Sampling], frame: Frame, graph: bool) -> Tokens:
        """The reader has each token while the next step is on its way."""
        vocab_size = self.model.config.vocab_size
        sampler = Sampler(samplings, self.prompts, vocab_size=vocab_size, device=self.device)
        logits, _ = self.prefill()
        first = sampler.pick(logits, sampler.draws())
        yield first.tolist()
        if self.max_new_tokens == 1:
            return
        with borrowed_step(self.model, len(self.prompts), sampler.kind, frame) as step:
            step.begin(frame, self.positions, first, sampler, graph=graph)
            pending = on_its_way(step.run(sampler.draws()))
            for _ in range(self.max_new_tokens - 2):
                following = on_its_way(step.run(sampler.draws()))
                yield pending()
                pending = following
            yield pending()
