"""Which language a text is in, by langdetect, as IFEval asks it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from ...errors import InputError

LANGUAGES = {
    "af": "Afrikaans",
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "gu": "Gujarati",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "kn": "Kannada",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "mk": "Macedonian",
    "ml": "Malayalam",
    "mr": "Marathi",
    "ne": "Nepali",
    "nl": "Dutch",
    "no": "Norwegian",
    "pa": "Punjabi",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "so": "Somali",
    "sq": "Albanian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh-cn": "Chinese (simplified)",
    "zh-tw": "Chinese (traditional)",
}
"""The languages that langdetect tells apart, by its codes."""


def needs_langdetect(name: str) -> None:
    """Raise `InputError` if langdetect, which ``name`` needs, is not installed."""
    if find_spec("langdetect") is None:
        raise InputError(
            f'{name} needs langdetect, which is not installed: pip install "minboost[suites]"'
        )


def language_of(text: str) -> str | None:
    """The code of the most likely language of ``text``; None if there is nothing to tell it by.

    langdetect draws what it looks at. The seed is fixed here, so that a text has one verdict;
    IFEval leaves it open.
    """
    from langdetect import LangDetectException

    detector = _profiles().create()
    detector.append(text)
    try:
        return str(detector.detect())
    except LangDetectException:
        return None


@cache
def _profiles() -> Any:
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    profiles = DetectorFactory()
    profiles.load_profile(PROFILES_DIRECTORY)
    profiles.set_seed(0)
    return profiles
