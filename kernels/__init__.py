"""Triton kernels, imported as ``minboost.kernels``; this file imports no triton."""

# transformers 5 looks for Hugging Face's package named ``kernels`` and parses this attribute
# when the repository root is first on sys.path; "0" reads as "too old, not the one you want".
__version__ = "0"
