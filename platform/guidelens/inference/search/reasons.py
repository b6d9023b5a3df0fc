"""Why a product was found, for people: in English and Chinese."""

from guidelens.inference.words import is_chinese
from guidelens.schemas.search import Matched

_SAID: dict[Matched, tuple[str, str]] = {
    "title": ("what you asked for", "正是您要找的"),
    "words": ("matches your words", "与您的搜索词相符"),
    "synonym": ("also called what you asked for", "与您的搜索词同义"),
    "meaning": ("close to what you mean", "与您的意思相近"),
    "recognized": ("recognized in your photo", "在您的照片中识别到"),
    "image": ("looks like your photo", "与您的照片相似"),
    "kind": ("of the same kind as in your photo", "与照片中的商品同类"),
}


def why(matched: tuple[Matched, ...], locale: str) -> tuple[str, ...]:
    return tuple(_SAID[each][is_chinese(locale)] for each in matched)
