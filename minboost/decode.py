"""Prefill and decode: token ids in, the logits of each next token out, through the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cache import KVCache
from .model import Transformer
from .plan import Plan


class Decoder:
    """One batch on its way: ``prefill`` once, then ``step`` with the tokens that were chosen.

    Sequences of unequal length are padded on the right for prefill and then each continues at
    its own position. The plan acts in prefill and in every step.
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
        self.positions = [len(ids) for ids in prompts]  # where each sequence writes next
        weight = model.embed_tokens.weight
        self.device = weight.device
        self.cache = KVCache(
            model.config,
            batch=len(prompts),
            length=max(self.positions) + max_new_tokens,
            device=weight.device,
            dtype=weight.dtype,
        )

    @torch.inference_mode()
    def prefill(self, *, return_mass: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run all prompts.

        Returns:
            The logits (B, V) float32 after each prompt's last token, on the CPU, and, if asked
            for, the mass (L, B, H, N) of that token's attention on the plan's spans.
        """
        longest = max(self.positions)
        padded = [list(ids) + [0] * (longest - len(ids)) for ids in self.prompts]
        out = self.model(
            torch.tensor(padded, device=self.device),
            cache=self.cache,
            plan=self.plan,
            last=torch.tensor(self.positions, device=self.device) - 1,
            return_mass=return_mass,
        )
        mass = None if out.mass is None else out.mass[:, :, :, 0].cpu()
        return self.model.logits(out.hidden)[:, 0].cpu(), mass

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each sequence; the logits (B, V) float32 that follow, on the CPU."""
        even = len(set(self.positions)) == 1
        out = self.model(
            torch.tensor(tokens, device=self.device)[:, None],
            cache=self.cache,
            # One position for all is the cheaper path: keys are sliced, not masked.
            start=self.positions[0] if even else torch.tensor(self.positions, device=self.device),
            keys=max(self.positions) + 1,
            plan=self.plan,
        )
        self.positions = [position + 1 for position in self.positions]
        return self.model.logits(out.hidden)[:, 0].cpu()
