"""What steering one head alone does to a case's answer, for every head, in about one pass a layer.

The score of a head is the log-probability of the answer while that head alone is steered, less the
plain model's. Steering head h of layer l changes nothing that enters layer l, and no row before the
first at which some keys are steered and others are not. So a case is run plainly once, keeping what
enters every layer and all keys and values. Then the heads of a layer run side by side, as one
batch, from their layer on and over the rows that can change: on average half of the layers, and
none of the prompt in front of the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache import KVCache
from ..errors import InputError, ModelError
from ..lm import LM
from ..methods import Latent, Method
from ..ops import Step
from ..placement import place
from ..plan import Plan, SequencePlan, sequence_plan
from ..run import checked_prompt
from ..suites import Case

END = -1  # stands for whichever token ends an answer
ROWS = 2048  # of the stream that run together
SPARE_ROWS = 256  # run for nothing where that saves a forward
PLAIN_BYTES = 512 << 20  # what a batch of cases may keep of its plain run
LOGITS = 1 << 24  # logits formed at a time


@dataclass(frozen=True)
class Asked:
    """A case as the model reads it, under a method on its heads.

    ``ids`` are the prompt and the answer but its last token, ``targets`` the answer's tokens (END
    last, where the case must match exactly), and ``first`` is the first row that steering any one
    head can change, or the first that an answer's token is read from.
    """

    case: Case
    ids: tuple[int, ...]
    targets: tuple[int, ...]
    first: int
    plan: SequencePlan

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer(self) -> int:
        """The row that the answer's first token is read from."""
        return len(self.ids) - len(self.targets)


@dataclass(frozen=True)
class Scored:
    """A case's scores, each (L, H).

    ``gains`` float32 in nats, NaN where a head was not tried; ``right`` bool: whether greedy
    decoding with that head steered gives the answer (or where it need only be contained, begins
    with it). ``plain`` and ``plain_right`` are the plain model's log-probability and outcome.
    """

    case: Case
    gains: Tensor
    right: Tensor
    plain: float
    plain_right: bool


def one_head(method: Method, layer: int, head: int) -> Method:
    """``method`` on that head alone."""
    return replace(method, layers="all", heads={layer: (head,)})


def ask(lm: LM, case: Case, method: Method, *, role: str = "system") -> Asked:
    """``case`` as generation would see it, with its answer behind the prompt.

    Raises:
        InputError: a method without heads, or that does not fit the case, or a case longer than
            the model's context; the message names the case.
    """
    if isinstance(method, Latent):
        raise InputError("latent steering acts on the whole stream and knows no heads to profile")
    config, tokenizer = lm.config, lm.tokenizer
    try:
        if not case.answer:
            raise InputError("the case has checks but no answer whose score could be measured")
        texts = place((method,), instruction=case.instruction, query=case.query)
        prompt = checked_prompt(tokenizer, role, texts.instruction, texts.query, config.vocab_size)
        plan = sequence_plan(texts.spans(prompt), tokens=len(prompt.ids), **config.size)
        if not plan.heads:
            strength = f"{method.strength} = {getattr(method, method.strength):g}"
            raise InputError(f"{method.name} with {strength} steers nothing: no head has a score")
        targets = tuple(tokenizer.encode(case.answer, plain=[(0, len(case.answer))]).ids)
        if case.match == "exact" and _end_ids(lm):
            targets = (*targets, END)
        ids = (*prompt.ids, *targets[:-1])
        if not targets or len(ids) >= config.context_length:
            raise InputError(
                f"prompt and answer have {len(ids) + 1} tokens, the model's context holds "
                f"{config.context_length}"
            )
    except InputError as error:
        raise InputError(f"{error} (task {case.task}, instruction {case.instruction!r})") from error
    if max(targets) >= config.vocab_size:
        raise ModelError(
            f"the tokenizer writes {case.answer!r} with id {max(targets)}, but the model has "
            f"{config.vocab_size} tokens: tokenizer.json and config.json do not belong together"
        )
    # A row that sees only steered keys, or only others, is what it was: softmax takes no notice.
    edges = [edge for span in plan.spans for edge in (span.start, span.stop) if edge > 0]
    return Asked(case, ids, targets, min(*edges, len(prompt.ids) - 1), plan)


@torch.inference_mode()
def score(
    lm: LM, asked: Sequence[Asked], heads: Mapping[int, Sequence[int]], *, rows: int = ROWS
) -> list[Scored]:
    """The scores of the ``heads`` {layer: heads}, for cases of ``ask``.

    Memory: the streams and the KV cache of all the cases (``batches`` bounds them), and what a
    forward over ``rows`` rows needs.

    Raises:
        ModelError: the model's logits are not finite.
    """
    L, H = lm.config.num_hidden_layers, lm.config.num_attention_heads
    plain = _PlainRun(lm, asked)
    gains = torch.full((len(asked), L, H), float("nan"))
    right = torch.zeros(len(asked), L, H, dtype=torch.bool)
    for layer, chosen in heads.items():
        for part in plain.parts(layer, chosen, rows):
            cases, columns = torch.tensor(part, device=lm.device).T
            log_prob, correct = plain.steered(layer, cases, columns)
            cases, columns = cases.cpu(), columns.cpu()
            gains[cases, layer, columns] = (log_prob - plain.log_prob[cases]).float()
            right[cases, layer, columns] = correct
    return [
        Scored(one.case, gains[i], right[i], plain.log_prob[i].item(), bool(plain.right[i]))
        for i, one in enumerate(asked)
    ]


def batches(lm: LM, cases: Sequence[Asked], *, rows: int = ROWS) -> Iterator[list[Asked]]:
    """The cases in order, in batches as large as ``score`` should be given."""
    config = lm.config
    token = config.hidden_size + 2 * config.num_key_value_heads * config.head_dim
    room = PLAIN_BYTES // (token * config.num_hidden_layers * lm.dtype.itemsize)
    batch: list[Asked] = []
    longest = 0
    for case in cases:
        longest = max(longest, len(case))
        if batch and (len(batch) + 1) * longest > min(room, rows):
            yield batch
            batch, longest = [], len(case)
        batch.append(case)
    if batch:
        yield batch


class _PlainRun:
    """Cases run plainly, once: what enters each layer, the keys and values, the answers' scores."""

    def __init__(self, lm: LM, asked: Sequence[Asked]) -> None:
        self.lm, self.asked, device = lm, asked, lm.device
        B, T = len(asked), max(map(len, asked))
        A = max(len(case.targets) for case in asked)
        self.plan = Plan.build([case.plan for case in asked], **lm.config.size, device=device)
        ids = torch.zeros(B, T, dtype=torch.int64)
        self.targets = torch.zeros(B, A, dtype=torch.int64)
        self.at = torch.zeros(B, A, dtype=torch.int64)  # which row each target is read from
        self.used = torch.zeros(B, A, dtype=torch.bool)
        for b, case in enumerate(asked):
            count = len(case.targets)
            ids[b, : len(case)] = torch.tensor(case.ids)
            self.targets[b, :count] = torch.tensor(case.targets)
            self.at[b, :count] = torch.arange(case.answer, len(case))
            self.used[b, :count] = True
        self.targets, self.at, self.used = (
            t.to(device) for t in (self.targets, self.at, self.used)
        )
        self.cache = KVCache(lm.config, batch=B, length=T, device=device, dtype=lm.dtype)
        self.streams: list[Tensor] = []  # (B, T, hidden_size) by depth
        last = torch.tensor([len(case) - 1 for case in asked], device=device)
        x, self.step = lm.model.begin(ids.to(device), cache=self.cache, last=last)
        hidden = lm.model.blocks(x, self.step, stream=self._keep).hidden
        self.log_prob, self.right = self._judged(hidden, 0, torch.arange(B, device=device))

    def _keep(self, depth: int, x: Tensor) -> Tensor:
        self.streams.append(x)
        return x

    def parts(self, layer: int, heads: Sequence[int], rows: int) -> Iterator[list[tuple[int, int]]]:
        """The (case, head) pairs of a layer, in parts of at most ``rows`` rows.

        A part is run from the first row that any of its cases needs to the last, so that cases
        whose rows lie too far apart are parted.
        """
        order = sorted(range(len(self.asked)), key=lambda case: self._rows(layer, case))
        part: list[tuple[int, int]] = []
        first = stop = needed = 0
        for case in order:
            low, high = self._rows(layer, case)
            for head in heads:
                wide = (min(first, low), max(stop, high)) if part else (low, high)
                run = (len(part) + 1) * (wide[1] - wide[0])
                if part and run > min(rows, SPARE_ROWS + 1.25 * (needed + high - low)):
                    yield part
                    part, needed, wide = [], 0, (low, high)
                part.append((case, head))
                first, stop = wide
                needed += high - low
        if part:
            yield part

    def steered(self, layer: int, cases: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and outcome (B,) of ``cases`` (B,) with ``heads`` (B,) steered each."""
        firsts, stops = zip(*(self._rows(layer, b) for b in set(cases.tolist())), strict=True)
        first, stop = min(firsts), max(stops)
        step = Step(
            self.step.cos[cases, first:stop],
            self.step.sin[cases, first:stop],
            first,
            stop,
            _Continued(self.cache, cases),
            _on_one_head(self.plan, layer, cases, heads),
            None,
        )
        x = self.streams[layer][cases, first:stop]
        hidden = self.lm.model.blocks(x, step, first=layer).hidden
        return self._judged(hidden, first, cases)

    def _rows(self, layer: int, case: int) -> tuple[int, int]:
        """The rows to run, [first, stop): behind the last layer nothing attends to the others."""
        asked = self.asked[case]
        last = layer == self.lm.config.num_hidden_layers - 1
        return asked.answer if last else asked.first, len(asked)

    def _judged(self, hidden: Tensor, first: int, cases: Tensor) -> tuple[Tensor, Tensor]:
        """The answers' log-probabilities float64 and outcomes (B,), on the CPU.

        ``hidden`` (B, T, hidden_size) holds the rows from ``first`` on.
        """
        used = self.used[cases]  # (B, A)
        rows = (self.at[cases] - first).clamp(min=0)
        at = torch.arange(len(cases), device=cases.device)[:, None].expand_as(rows)
        log_prob, right = token_scores(
            self.lm, hidden[at[used], rows[used]], self.targets[cases][used]
        )
        used = used.cpu()
        sums = torch.zeros(used.shape, dtype=torch.float64)
        sums[used] = log_prob
        outcomes = torch.ones(used.shape, dtype=torch.bool)
        outcomes[used] = right
        return sums.sum(1), outcomes.all(1)


class _Continued(KVCache):
    """The cache of a plain run as many sequences see it that go on from it, each its own way.

    Sequence b continues case ``cases[b]``. What it writes is not kept: one forward needs it only
    in the layer that wrote it.
    """

    def __init__(self, cache: KVCache, cases: Tensor) -> None:
        self.k, self.v = cache.k, cache.v
        self._rows = cases

    def write(
        self, layer: int, k: Tensor, v: Tensor, *, start: int | Tensor, keys: int
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(start, int)
        if start == 0:
            return k, v
        before_k, before_v = (t[layer, :, :, :start][self._rows] for t in (self.k, self.v))
        return torch.cat((before_k, k), 2), torch.cat((before_v, v), 2)


def _on_one_head(plan: Plan, layer: int, cases: Tensor, heads: Tensor) -> Plan:
    """The plan of ``cases`` (B,) with one of the ``heads`` (B,) of one layer steered in each."""

    def alone(strength: Tensor) -> Tensor:  # (L, B, H, …)
        out = strength.new_zeros(strength.shape[0], len(cases), *strength.shape[2:])
        at = torch.arange(len(cases), device=cases.device)
        out[layer, at, heads] = strength[layer, cases, heads]
        return out

    return Plan(
        plan.start[cases],
        plan.stop[cases],
        alone(plan.strength),
        None if plan.target is None else alone(plan.target),
        None if plan.targeted is None else plan.targeted[cases],
        plan.form,
    )


def token_scores(lm: LM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row (n, hidden_size): the log-probability float64 of its target, and whether that
    is the first choice; on the CPU."""
    ends = torch.tensor(_end_ids(lm), dtype=torch.int64, device=hidden.device)
    log_probs, right = [], []
    size = max(1, LOGITS // lm.config.vocab_size)
    for rows, target in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
        logits = lm.model.logits(rows)  # (n, V)
        best, over = logits.argmax(-1), target == END
        wanted = logits.gather(-1, target.clamp(min=0)[:, None])[:, 0]
        correct = best == target
        if over.any():
            wanted = wanted.where(~over, logits[:, ends].logsumexp(-1))
            correct |= over & torch.isin(best, ends)
        log_probs.append((wanted - logits.logsumexp(-1)).double().cpu())
        right.append(correct.cpu())
    log_prob = torch.cat(log_probs)
    if not log_prob.isfinite().all():
        raise ModelError(
            "the model's logits are not finite: it overflows in this dtype (try bfloat16 or "
            "float32) or its weights are damaged"
        )
    return log_prob, torch.cat(right)


def _end_ids(lm: LM) -> tuple[int, ...]:
    """The tokens that end an answer, as generation has them."""
    return lm.config.eos_token_ids or lm.tokenizer.eos_ids
