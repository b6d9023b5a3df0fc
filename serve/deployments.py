"""The one place where Ray Serve's untyped handles and `.bind` become typed: a hop with a budget and one retry."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ray.exceptions import RayError
from ray.serve import Application, deployment
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError, RayServeException

from guidelens.config import ServeConfig
from guidelens.errors import GuideLensError
from serve.hops import HopFailedError, HopOverloadedError

Call = TypeVar("Call")
Reply = TypeVar("Reply")

MIN_RETRY_S = 0.005


class RayHop(Generic[Call, Reply]):
    """A hop to another deployment's method `handle`."""

    def __init__(self, name: str, handle: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._handle = handle
        self._clock = clock

    async def ask(self, call: Call, budget_s: float) -> Reply:
        ends = self._clock() + budget_s
        try:
            return await self._attempt(call, budget_s)
        except (RayError, RayServeException, GuideLensError, TimeoutError) as error:
            first = _refuse_overload(self.name, error)
        left_s = ends - self._clock()
        if left_s < MIN_RETRY_S:
            raise HopFailedError(f"{self.name} gave no answer within {1000 * budget_s:.0f} ms: {first!r}") from first
        try:
            return await self._attempt(call, left_s)
        except (RayError, RayServeException, GuideLensError, TimeoutError) as error:
            raise HopFailedError(f"{self.name} failed twice within {1000 * budget_s:.0f} ms: {error!r}") from _refuse_overload(self.name, error)

    async def _attempt(self, call: Call, budget_s: float) -> Reply:
        response = self._handle.handle.remote(call)
        try:
            async with asyncio.timeout(budget_s):
                reply: Reply = await response
        except TimeoutError:
            response.cancel()
            raise
        return reply


def _refuse_overload(name: str, error: Exception) -> Exception:
    if isinstance(error, BackPressureError):
        raise HopOverloadedError(f"{name} has as many requests queued as it may have") from error
    return error


def bind(replica: type, config: ServeConfig, *arguments: object, spare_queue: int = 0) -> Application:
    """An autoscaling deployment of `replica`, named after it, with bounded queues.

    Args:
        spare_queue: added to both limits where the replica sheds load itself and must get to answer.
    """
    return deployment(
        name=replica.__name__,
        max_ongoing_requests=config.max_ongoing_requests + spare_queue,
        max_queued_requests=config.max_queued_requests + spare_queue,
        autoscaling_config=AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=max(config.min_replicas, config.max_replicas),
            target_ongoing_requests=max(1.0, config.max_ongoing_requests / 2),
        ),
        ray_actor_options={"num_cpus": 0.5},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
    )(replica).bind(*arguments)
