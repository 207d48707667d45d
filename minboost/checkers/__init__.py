"""Checkers: rules that an answer keeps or breaks, each with the reason."""

from .base import Checker, Verdict
from .registry import CHECKERS, read_check, read_checks

__all__ = ["CHECKERS", "Checker", "Verdict", "read_check", "read_checks"]
