"""The directions of latent steering, each from the states h+ and h− (InstABoost, arXiv 2506.13734).

Everything is worked out in float64 on the CPU. ``positive`` and ``negative`` are (n, hidden_size):
a row for each prompt, the residual stream at its last token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import as_integer
from ..directions import MAX_SEED, Direction
from ..errors import InputError, ModelError

SAME = 1e-6
"""Where states differ by less than this share of their norm, they are the same but for rounding."""
MAX_STEPS = 200


def find_direction(
    kind: str, positive: Tensor, negative: Tensor, *, layer: int, seed: int = 42
) -> Direction:
    """The direction of one kind at the input of ``layer``, which the states were taken from.

    diffmean: μ+ − μ−. linear: the weights of a logistic regression that tells h+ (class 1) from h−
    (class 0), with scikit-learn's default penalty ½‖w‖² and C = 1, and a free intercept. pcact: the
    first principal component of h+, each row made a unit vector. pcdiff: that of the differences
    h+ − h−, pair by pair, each made a unit vector. random: standard normal numbers from ``seed`` +
    ``layer``. projection: that of diffmean, which is to be taken out instead of added. All are then
    made unit vectors; principal components, which have no sign of their own, agree with diffmean's.

    Where the paper's words leave room its public code decides, but for two points. Its principal
    components are not centred over the prompts, as centring would remove the very mean that is
    wanted: they are the first right singular vector of the (n, hidden_size) matrix. (It hands
    scikit-learn the transpose, so that each row is centred over its coordinates; that has no
    meaning here and is left out.) Its logistic regression has h+ as class 0, so that its vector
    points to h−; this one points to h+, as all the others do.

    Raises:
        InputError: the sets do not fit together, or are the same.
        ModelError: states that are not finite.
    """
    positive, negative = _checked(positive, layer), _checked(negative, layer)
    if positive.shape[1] != negative.shape[1]:
        raise InputError(
            f"the states are {positive.shape[1]} and {negative.shape[1]} numbers wide: "
            "they must be one model's"
        )
    towards = mean_difference(positive, negative, layer=layer)
    if kind in ("diffmean", "projection"):
        vector = towards
    elif kind == "linear":
        vector = _logistic_weights(positive, negative)
    elif kind == "pcact":
        vector = _first_component(_unit_rows(positive, layer, "a state"), towards)
    elif kind == "pcdiff":
        check_paired(len(positive), len(negative))
        differences = positive - negative
        differences[differences.norm(dim=-1) <= SAME * positive.norm(dim=-1)] = 0
        vector = _first_component(_unit_rows(differences, layer, "the difference"), towards)
    elif kind == "random":
        generator = torch.Generator().manual_seed(as_integer("seed", seed, 0, MAX_SEED) + layer)
        vector = torch.randn(positive.shape[1], generator=generator, dtype=torch.float64)
    else:
        vector = towards  # Direction names the kinds there are
    return Direction(kind, layer, vector / vector.norm())


def mean_difference(positive: Tensor, negative: Tensor, *, layer: int) -> Tensor:
    """μ+ − μ− (hidden_size,) float64; InputError where the two are the same but for rounding."""
    positive, negative = _checked(positive, layer), _checked(negative, layer)
    difference = positive.mean(0) - negative.mean(0)
    if float(difference.norm()) <= SAME * stream_norm(positive, negative):
        why = (
            "every prompt ends with the same token, and layer 0 sees nothing else yet"
            if layer == 0
            else "the two sets hold the same prompts"
        )
        raise InputError(
            f"there is no difference at the input of layer {layer} between the means of the "
            f"positive and the negative prompts: perhaps {why}"
        )
    return difference


def stream_norm(positive: Tensor, negative: Tensor) -> float:
    """The mean norm of the states of both sets."""
    return float(torch.cat((positive, negative)).double().norm(dim=-1).mean())


def separation(direction: Direction, positive: Tensor, negative: Tensor) -> float:
    """How well a threshold on h·d tells h+ from h−: the share it gets right, mean of both sets.

    The threshold lies half-way between the two means, on whichever side they are; .5 is chance.
    """
    d = direction.vector.double()
    high, low = positive.double() @ d, negative.double() @ d
    if high.mean() < low.mean():
        high, low = low, high
    threshold = (high.mean() + low.mean()) / 2
    shares = (high > threshold).double().mean() + (low < threshold).double().mean()
    return float(shares) / 2


def check_paired(positive: int, negative: int) -> None:
    if positive != negative:
        raise InputError(
            f"pcdiff takes differences pair by pair: there must be as many positive prompts as "
            f"negative ones, got {positive} and {negative}; leave pcdiff out, or pair them"
        )


def _checked(states: Tensor, layer: int) -> Tensor:
    if states.dim() != 2 or not states.numel():
        raise InputError(f"states must be (n, hidden_size), got {tuple(states.shape)}")
    states = states.detach().cpu().double()
    if not states.isfinite().all():
        raise ModelError(
            f"the residual stream at the input of layer {layer} is not finite: the model overflows "
            "in this dtype (try bfloat16 or float32) or its weights are damaged"
        )
    return states


def _unit_rows(rows: Tensor, layer: int, what: str) -> Tensor:
    norms = rows.norm(dim=-1, keepdim=True)
    if not norms.all():
        at = int((norms[:, 0] == 0).nonzero()[0, 0])
        raise InputError(
            f"{what} at the input of layer {layer} is zero for positive prompt {at + 1}, so it has "
            "no direction: perhaps its negative prompt is the same text"
        )
    unit: Tensor = rows / norms
    return unit


def _first_component(rows: Tensor, towards: Tensor) -> Tensor:
    """The first right singular vector of ``rows``, with the sign that agrees with ``towards``."""
    vector: Tensor = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    return -vector if float(vector @ towards) < 0 else vector


def _logistic_weights(positive: Tensor, negative: Tensor) -> Tensor:
    """w that minimises ½‖w‖² + Σ log(1 + exp(−y(w·x + b))) over w and b, by Newton's method.

    w lies in the span of the states, and b takes up any shift of them, so it is found in the
    coordinates of their singular vectors about the mean: at most n of them.
    """
    x = torch.cat((positive, negative))
    x = x - x.mean(0)
    side = torch.cat((x.new_ones(len(positive)), -x.new_ones(len(negative))))
    u, s, basis = torch.linalg.svd(x, full_matrices=False)
    design = torch.cat((u * s, x.new_ones(len(x), 1)), 1)  # (n, r + 1), the intercept last
    penalty = design.new_ones(design.shape[1])
    penalty[-1] = 0

    def loss(at: Tensor) -> float:
        # Not softplus, which is cut off at 20.
        fit = torch.nn.functional.logsigmoid(side * (design @ at)).sum()
        return float((penalty * at * at).sum() / 2 - fit)

    at = torch.zeros_like(penalty)
    current = loss(at)
    for _ in range(MAX_STEPS):
        margin = side * (design @ at)
        wrong = torch.sigmoid(-margin)  # not 1 − the other: where all are told apart it is tiny
        gradient = penalty * at - design.T @ (side * wrong)
        curvature = design.T @ (design * (wrong * torch.sigmoid(margin))[:, None])
        curvature = curvature + torch.diag(penalty)
        step = torch.linalg.solve(curvature, gradient)
        settled = float(step[:-1].norm()) <= 1e-8 * float(at[:-1].norm())
        # The loss is convex: far from its minimum a shorter step is sure to get nearer. Near it
        # the two losses are the same but for rounding.
        while (new := loss(at - step)) > current * (1 + 1e-12):
            step = step / 2
        at, current = at - step, new
        if settled:  # the last step squares what is left of the error
            weights: Tensor = at[:-1] @ basis
            return weights
    raise ModelError(f"the logistic regression did not settle in {MAX_STEPS} steps")
