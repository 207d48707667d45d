"""Decoding on a CPU, a single sequence at a time: the fast way beside ``Transformer.forward``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from .calibrate import choose
from .eager import Eager
from .row import RowDecoder, all_layer_weights, head_weights, layouts, shape_of

if TYPE_CHECKING:
    from ..model import Transformer

__all__ = ["Eager", "RowDecoder", "prepare"]


def prepare(model: Transformer, *, compile: bool = False, calibrate: bool = True) -> None:
    """Give a loaded ``model`` its fast way to decode a single sequence, as ``model.row``.

    Args:
        compile: one compiled function for all layers, from this run or an earlier one
            (compiled.py), instead of PyTorch's own kernels.
        calibrate: measure which form of the products is fastest here where that is not known
            (calibrate.py). Of no account with ``compile``, or with int8 weights.

    Raises:
        InputError: ``compile`` where the model does not run in plain torch on a CPU, or where
            nothing can be compiled.
    """
    if model.device.type != "cpu" or model.impl != "torch":
        if compile:
            raise InputError(
                "compile is for the torch implementation on a CPU; this model runs "
                f"{model.impl} on {model.device}"
            )
        return
    weights = all_layer_weights(model)
    ends = head_weights(model)
    if compile:
        from .compiled import compiled

        made = compiled(weights[0], ends, shape_of(model), model.dtype)
        model.row = RowDecoder({}, made, layouts(model))
        return
    kinds = {name: [of[name] for of in weights] for name in ("qkv", "o", "gate_up", "down")}
    kinds["head"] = [ends["head"]]
    model.row = RowDecoder(choose(kinds, measure=calibrate))
