"""Feast's Redis online store, in which a newer value is never overwritten by an older one, whoever writes at the same time.

Feast's own reads the stored times, compares, and writes: a push between its read and its write is lost. Here the comparison and
the write are one script on the server. A view's ttl bounds how long Redis keeps a row: until its own time plus ttl.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.helpers import _mmh3, _redis_key, _redis_key_prefix
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, Timestamp, _versioned_fv_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from feature_repo.moments import microseconds

_SCAN = 2_000

# KEYS[1] the entity; ARGV: field of the view's microseconds, microseconds, when the row expires (ms since 1970, 0 for never), field, value...
_WRITE_IF_NEWER = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and tonumber(held) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], unpack(ARGV, 4))
local expires = tonumber(ARGV[3])
if expires == 0 then
  redis.call('PERSIST', KEYS[1])
elseif redis.call('PTTL', KEYS[1]) < 0 or redis.call('PEXPIRETIME', KEYS[1]) < expires then
  redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
return 1
"""

# KEYS[1] the entity; ARGV: microseconds, then each view's field of microseconds. What holds none of them is not ours to judge.
_EXPIRE_IF_OLDER = """
local held = false
for i = 2, #ARGV do
  local stamp = redis.call('HGET', KEYS[1], ARGV[i])
  if stamp then
    if tonumber(stamp) >= tonumber(ARGV[1]) then return 0 end
    held = true
  end
end
return held and redis.call('DEL', KEYS[1]) or 0
"""


class NewerWinsRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    type: Literal["feature_repo.redis_online_store.NewerWinsRedisOnlineStore"] = "feature_repo.redis_online_store.NewerWinsRedisOnlineStore"


class NewerWinsRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Compares in whole microseconds; an equal time overwrites, so that a repaired row can be loaded again.

    Each view's microseconds lie in a field of their own beside Feast's `_ts:VIEW`, which its readers go on using.
    """

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """One round trip a batch."""
        client = self._get_client(config.online_store)
        write = client.register_script(_WRITE_IF_NEWER)
        view = _versioned_fv_name(table, config)
        with client.pipeline(transaction=False) as pipe:
            for entity_key, values, moment, _ in data:
                fields: list[Any] = [f"_ts:{view}", _timestamp(moment)]
                for feature, value in values.items():
                    fields += [_mmh3(f"{view}:{feature}"), value.SerializeToString()]
                key = _redis_key(config.project, entity_key, config.entity_key_serialization_version)
                write(keys=[key], args=[f"_us:{view}", microseconds(moment), _expires_ms(table, moment), *fields], client=pipe)
            pipe.execute()
        if progress:
            progress(len(data))

    async def online_write_batch_async(self, *_unused: Any, **_named: Any) -> None:
        raise NotImplementedError("rows are written by online_write_batch: Feast's own asynchronous write lets an older value overwrite a newer one")

    def _read_hash_fields(self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]) -> list[list[bytes | None]]:
        """One entity is one command, without the pipeline that Feast wraps around it."""
        if len(commands) == 1:
            return [self._get_client(config.online_store).hmget(*commands[0])]
        found: list[list[bytes | None]] = super()._read_hash_fields(config, commands)
        return found

    def forget_entity(self, config: RepoConfig, views: Sequence[FeatureView], key: EntityKey) -> int:
        """Removes an entity from all views; returns of how many. Redis keeps all views of an entity under one key."""
        name = _redis_key(config.project, key, config.entity_key_serialization_version)
        client = self._get_client(config.online_store)
        held = sum(found is not None for found in client.hmget(name, [f"_ts:{_versioned_fv_name(view, config)}" for view in views]))
        client.delete(name)
        return held

    def expire_entities(self, config: RepoConfig, views: Sequence[FeatureView], before: datetime) -> int:
        """Removes the entities of which none of the views holds a row stamped `before` or later; returns how many. A push meanwhile is kept."""
        client = self._get_client(config.online_store)
        expire = client.register_script(_EXPIRE_IF_OLDER)
        stamps = [f"_us:{_versioned_fv_name(view, config)}" for view in views]
        gone = 0
        for keys in _batches(client, config, views[0]):
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    expire(keys=[key], args=[microseconds(before), *stamps], client=pipe)
                gone += sum(pipe.execute())
        return gone

    def num_entities(self, config: RepoConfig, view: FeatureView) -> int:
        """Entities that have a row of the view; looks at each key once."""
        client, held = self._get_client(config.online_store), 0
        for keys in _batches(client, config, view):
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hexists(key, f"_ts:{_versioned_fv_name(view, config)}")
                held += sum(map(bool, pipe.execute()))
        return held


def _batches(client: Any, config: RepoConfig, view: FeatureView) -> Iterator[list[bytes]]:
    """The keys of the view's entities, each once."""
    keys = list(set(client.scan_iter(b"".join([_redis_key_prefix(view.join_keys), b"*", config.project.encode()]), count=_SCAN)))
    for start in range(0, len(keys), _SCAN):
        yield keys[start : start + _SCAN]


def _timestamp(moment: datetime) -> bytes:
    stamp = Timestamp()
    stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    found: bytes = stamp.SerializeToString()
    return found


def _expires_ms(view: FeatureView, moment: datetime) -> int:
    """The first whole millisecond at which the row is too old; 0 where the view has no ttl."""
    if not view.ttl:
        return 0
    ttl: timedelta = view.ttl
    return (microseconds(moment) + ttl // timedelta(microseconds=1)) // 1000 + 1
