"""Words of queries and products: numbers, English stems, Chinese characters and pairs. Knows nothing of what they mean."""

import re

from guidelens.retrieval.texts import normalized

__all__ = ["english_words", "is_wide", "normalized", "stem", "terms"]

_WIDE = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ가-힯]")
_RUN = re.compile(r"[0-9]+|[㐀-䶿一-鿿豈-﫿぀-ヿ가-힯]+|[^\W\d_㐀-䶿一-鿿豈-﫿぀-ヿ가-힯]+")
_KEPT = frozenset(
    {
        "asparagus",
        "citrus",
        "hummus",
        "couscous",
        "glass",
        "brass",
        "gloss",
        "class",
        "dress",
        "wireless",
        "seamless",
        "stainless",
        "lens",
        "bus",
        "gas",
        "plus",
        "canvas",
    }
)
_ES = ("ches", "shes", "sses", "xes", "zes", "oes")


def is_wide(text: str) -> bool:
    """Whether a text holds Chinese, Japanese or Korean."""
    return _WIDE.search(text) is not None


def runs(text: str) -> list[str]:
    """Numbers, words and runs of Chinese, in their order."""
    return _RUN.findall(normalized(text))


def english_words(text: str) -> list[str]:
    """Words of an alphabet, and numbers."""
    return [run for run in runs(text) if not is_wide(run)]


def stem(word: str) -> str:
    """An English word without its plural: what two spellings of one thing share."""
    if len(word) < 4 or word in _KEPT or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(_ES):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def terms(text: str) -> list[str]:
    """What a text is matched by, each once: `#42` for numbers, `=apple` for stems, `'苹` and `'苹果` for Chinese characters and pairs."""
    found: dict[str, None] = {}
    for run in runs(text):
        if run.isdigit():
            found[f"#{run.lstrip('0') or '0'}"] = None
        elif is_wide(run):
            found.update(dict.fromkeys(f"'{character}" for character in run))
            found.update(dict.fromkeys(f"'{run[at : at + 2]}" for at in range(len(run) - 1)))
        else:
            found[f"={stem(run)}"] = None
    return list(found)
