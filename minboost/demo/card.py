"""The model card that is written beside the weights."""
from __future__ import annotations
def model_card(*a): return ""
