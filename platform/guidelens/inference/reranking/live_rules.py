"""The rules in force while serving runs: a file that may change, and the rules that its last usable state holds."""

import logging
from collections.abc import Sequence
from pathlib import Path

from guidelens.errors import ConfigError
from guidelens.inference.reranking.expert import ProductFacts
from guidelens.inference.reranking.rules import RuleSet, read_rules
from guidelens.inference.reranking.shop_rules import ShopRules

log = logging.getLogger(__name__)


class LiveRules:
    """Rules of the first of `paths` that exists, read again when it changes; none but stock where none exists.

    A change that cannot be used leaves the rules before it in force and is logged as an error; `problem` then says what is wrong.
    """

    def __init__(self, paths: Sequence[Path], product_ids: Sequence[str], categories: Sequence[str], facts: ProductFacts | None = None) -> None:
        """Raises:
        ConfigError: the first that exists cannot be used: serving does not start with other rules than those asked for.
        """
        self._paths, self._product_ids, self._categories, self._facts = tuple(paths), product_ids, categories, facts
        self.problem: str | None = None
        self._seen = self._stamp()
        self._rules = self._read()

    def current(self) -> ShopRules:
        """The rules in force; costs a stat of each path where nothing changed."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._rules, self.problem = self._read(), None
            except ConfigError as error:
                self.problem = str(error)
                log.error("the rules before stay in force: %s", error)
        return self._rules

    def _read(self) -> ShopRules:
        path = next((path for path in self._paths if path.exists()), None)
        rules = ShopRules(RuleSet() if path is None else read_rules(path), self._product_ids, self._categories, self._facts)
        if path is not None:
            log.info("rules of %s are in force", path)
        if rules.idle:
            log.warning("expert rules %s of %s are about products of which this catalogue holds none", ", ".join(rules.idle), path)
        if rules.unknown:
            log.warning("rules %s name products that this catalogue does not hold: %s", path, ", ".join(rules.unknown[:10]))
        return rules

    def _stamp(self) -> tuple[str, int, int] | None:
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                continue
            return str(path), found.st_mtime_ns, found.st_size
        return None
