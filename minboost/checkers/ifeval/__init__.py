"""The verifiable instructions of IFEval (arXiv 2311.07911): a rule for each, and their checker."""

from .checker import RULES, IFEval, loosened

__all__ = ["RULES", "IFEval", "loosened"]
