"""The errors that users of minboost can expect, each with a message that names the cause."""


class MinboostError(Exception):
    """Base of every error that minboost raises on purpose."""


class InputError(MinboostError, ValueError):
    """The request itself is wrong: a span, a strength, a layer, a length, an option."""


class ModelError(MinboostError):
    """The model cannot be used: missing, gated, malformed or unsupported."""
