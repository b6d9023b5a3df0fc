"""Mistyped words, homophones and pinyin, set right by what a shop's products are called; and completions of what is being typed.

A word that the general dictionary knows is never changed: who asks a grocer for a laptop means one.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pypinyin import lazy_pinyin
from rapidfuzz import process
from rapidfuzz.distance import OSA
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from guidelens.errors import BundleError
from guidelens.inference.search.lexicon import Lexicon, dictionary
from guidelens.inference.search.words import is_wide, normalized, runs, stem
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import stable_hash

FILE, GENERAL = "search_words.json", "search_words.safetensors"
_SHORTEST = 4
_LONG = 6
"""From this length on two slips are forgiven, below it one."""
_LONGEST_CORRECTED = 100
_HOMOPHONE = range(4, 1, -1)
MAX_COMPLETIONS = 8


class Phrase(Frozen):
    """A title, category or brand that may be suggested; weight: how popular what it names is."""

    text: str
    weight: float


class _Words(Frozen):
    schema_version: int = 1
    english: dict[str, int]
    chinese: dict[str, int]
    ignored: tuple[str, ...]
    simplified: dict[str, str]
    phrases: tuple[Phrase, ...]


class Spelling:
    """The words of a shop, and the general ones it leaves alone."""

    def __init__(self, words: _Words, general: NDArray[np.int64]) -> None:
        """Args:
        general: hashes of general words, ascending.
        """
        self._words, self._general = words, general
        self._english = list(words.english)
        self._stems = {stem(word) for word in self._english}
        self._ignored = frozenset(words.ignored)
        self._simplified = str.maketrans(words.simplified)
        self._by_sound: dict[str, str] = {}
        for word in sorted(words.chinese, key=lambda word: words.chinese[word]):
            self._by_sound[_sound(word)] = word
        said = [Phrase(text=word, weight=0.0) for word in words.chinese]
        self._phrases = [(normalized(phrase.text), _sound(phrase.text) if is_wide(phrase.text) else "", phrase) for phrase in (*words.phrases, *said)]

    @classmethod
    def build(cls, titles: Iterable[Sequence[str]], names: Iterable[Sequence[str]], phrases: Iterable[Phrase], lexicon: Lexicon) -> "Spelling":
        """Args:
        titles, names: of each product, as in ProductTexts.
        """
        english: Counter[str] = Counter()
        chinese: Counter[str] = Counter()
        for text in (text for texts in (*titles, *names) for text in texts):
            for called in (text, *lexicon.others(text)):
                for run in runs(called):
                    if is_wide(run):
                        chinese.update(word for word in lexicon.words(run) if len(word) > 1)
                    elif not run.isdigit():
                        english[run] += 1
        general = np.array(sorted(stable_hash(word) for word in dictionary().all_words()), np.int64)
        kept = {phrase.text: phrase for phrase in phrases}
        return cls(
            _Words(
                english=dict(english),
                chinese=dict(chinese),
                ignored=tuple(sorted(lexicon.ignored)),
                simplified=lexicon.simplified,
                phrases=tuple(kept.values()),
            ),
            general,
        )

    def simple(self, query: str) -> str:
        """With simplified Chinese for traditional."""
        return query.translate(self._simplified)

    def corrected(self, query: str) -> str | None:
        """The query with its mistyped words set right; None where nothing was."""
        text = normalized(self.simple(query))
        if len(text) > _LONGEST_CORRECTED:
            return None
        said = self._from_pinyin(text)
        if said is not None:
            return said
        changed = text
        for run in runs(text):
            better = self._homophones(run) if is_wide(run) else self._retyped(run)
            if better != run:
                changed = changed.replace(run, better, 1)
        return changed if changed != text else None

    def meant(self, query: str) -> str:
        """The query without words that say nothing of a product; all of it where nothing else would be left."""
        kept = []
        for run in runs(query):
            if is_wide(run):
                for word in sorted((word for word in self._ignored if is_wide(word)), key=len, reverse=True):
                    if run not in self._words.chinese:
                        run = run.replace(word, " ") if not self._inside(run, word) else run
                kept += [part for part in run.split() if part]
            elif stem(run) not in self._ignored:
                kept.append(run)
        return " ".join(kept) or query

    def is_shops(self, word: str) -> bool:
        """Whether the shop's products bear this name, or every word of it."""
        return all(run in self._words.chinese if is_wide(run) else run in self._words.english or stem(run) in self._stems for run in runs(word))

    def _inside(self, run: str, ignored: str) -> bool:
        """Whether what would be left out is part of a word of the shop."""
        at = run.find(ignored)
        if at < 0:
            return True
        around = range(max(0, at - 3), at + 1)
        return any(
            run[start:end] in self._words.chinese
            for start in around
            for end in range(at + len(ignored), min(len(run), at + len(ignored) + 3) + 1)
            if end - start > len(ignored)
        )

    def _is_known(self, word: str) -> bool:
        return word in self._words.english or stem(word) in self._stems or self._is_general(word)

    def _is_general(self, word: str) -> bool:
        for each in {word, stem(word)}:
            at = int(np.searchsorted(self._general, stable_hash(each)))
            if at < len(self._general) and self._general[at] == stable_hash(each):
                return True
        return False

    def _retyped(self, word: str) -> str:
        if word.isdigit() or len(word) < _SHORTEST or self._is_known(word):
            return word
        allowed = 1 if len(word) < _LONG else 2
        found = process.extract(word, self._english, scorer=OSA.distance, score_cutoff=allowed, limit=5)
        near = [(int(distance), -self._words.english[each], each) for each, distance, _ in found if len(each) >= _SHORTEST and each[0] == word[0]]
        return min(near)[2] if near else word

    def _homophones(self, run: str) -> str:
        """Words written with other characters of the same sound."""
        for length in _HOMOPHONE:
            for at in range(len(run) - length + 1):
                word = run[at : at + length]
                if word in self._words.chinese or self._is_general(word):
                    continue
                meant = self._by_sound.get(_sound(word))
                if meant is not None and len(meant) == length and len(set(meant) & set(word)) > 0:
                    return run[:at] + meant + run[at + length :]
        return run

    def _from_pinyin(self, text: str) -> str | None:
        words = runs(text)
        if any(is_wide(word) or word.isdigit() or word in self._words.english or stem(word) in self._stems for word in words):
            return None
        return self._by_sound.get("".join(words))

    def completions(self, prefix: str, num: int = MAX_COMPLETIONS) -> tuple[str, ...]:
        """Phrases that go on from what was typed, in characters or in pinyin; those that begin with it first, then the more popular."""
        typed = normalized(self.simple(prefix))
        if not typed:
            return ()
        sound = typed.replace(" ", "")
        found = []
        for text, spoken, phrase in self._phrases:
            begins = text.startswith(typed)
            if begins or f" {typed}" in f" {text}" or (is_wide(typed) and typed in text) or (len(sound) > 1 and spoken.startswith(sound)):
                found.append((not begins, -phrase.weight, len(text), phrase.text))
        return tuple(dict.fromkeys(each[-1] for each in sorted(found)))[:num]

    def save(self, folder: Path) -> None:
        """Writes search_words.json and search_words.safetensors."""
        save_file({"general": self._general}, folder / GENERAL)
        (folder / FILE).write_text(json.dumps(self._words.model_dump(mode="json"), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Spelling":
        """What `save` wrote.

        Raises:
            BundleError: it is missing or damaged.
        """
        try:
            return cls(_Words.model_validate_json((folder / FILE).read_bytes()), load_file(folder / GENERAL)["general"])
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise BundleError(f"{folder / FILE} must hold the words of search, got {error}; release again") from error


def _sound(text: str) -> str:
    return "".join(lazy_pinyin(text)).replace(" ", "").lower()
