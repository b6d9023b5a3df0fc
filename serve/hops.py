"""A step of the graph, as the ingress sees it: asked with a budget, answering in time or failing. Knows nothing of Ray."""

from typing import Never, Protocol, TypeVar

from guidelens.errors import GuideLensError

CallIn = TypeVar("CallIn", contravariant=True)
ReplyOut = TypeVar("ReplyOut", covariant=True)


class HopFailedError(GuideLensError):
    """A hop gave no answer within its budget, one retry included."""


class HopOverloadedError(GuideLensError):
    """A hop's queue is full: the request is shed, not retried."""


class Hop(Protocol[CallIn, ReplyOut]):
    """One step of the graph, asked with a budget in seconds."""

    async def ask(self, call: CallIn, budget_s: float) -> ReplyOut:
        """The answer.

        Raises:
            HopFailedError: no answer within the budget.
            HopOverloadedError: the hop's queue is full.
        """
        ...


class NoHop:
    """Stands in for a step that a graph was built without."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def ask(self, call: object, budget_s: float) -> Never:
        raise HopFailedError(f"this graph has no {self._name}")
