"""Rows of a table as the online stores take them: by entity, Feast's protobuf values.

What Feast's own conversion gives (tests hold one against the other), without asking of each single value what it may be.
"""

from datetime import datetime

import polars as pl
from feast.feature_view import FeatureView
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

EntityRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_SCALARS = {
    ValueType.STRING: "string_val",
    ValueType.BYTES: "bytes_val",
    ValueType.INT64: "int64_val",
    ValueType.FLOAT: "float_val",
    ValueType.DOUBLE: "double_val",
}
_LISTS = {
    ValueType.STRING_LIST: ("string_list_val", Value_pb2.StringList),
    ValueType.INT64_LIST: ("int64_list_val", Value_pb2.Int64List),
    ValueType.FLOAT_LIST: ("float_list_val", Value_pb2.FloatList),
}


def entity_rows(rows: pl.DataFrame, view: FeatureView) -> list[EntityRow]:
    """Each row's entity key, values by feature, and time. A missing value and NaN are a Value that holds nothing.

    Args:
        rows: the view's join keys and features, and its source's timestamp.

    Raises:
        KeyError: a feature has a type that no view of ours has.
    """
    keys = [column.name for column in view.entity_columns]
    named = {column.name: _values(rows[column.name], column.dtype.to_value_type()) for column in (*view.entity_columns, *view.features)}
    entities = [EntityKey(join_keys=keys, entity_values=values) for values in zip(*(named[key] for key in keys), strict=True)]
    features = [feature.name for feature in view.features]
    by_row = (dict(zip(features, values, strict=True)) for values in zip(*(named[name] for name in features), strict=True))
    return [(entity, values, moment, None) for entity, values, moment in zip(entities, by_row, rows[view.batch_source.timestamp_field].to_list(), strict=True)]


def _values(column: pl.Series, kind: ValueType) -> list[Value]:
    if kind in _LISTS:
        field, as_list = _LISTS[kind]
        return [Value() if one is None else Value(**{field: as_list(val=one)}) for one in column.to_list()]
    field = _SCALARS[kind]
    known = column.fill_nan(None) if column.dtype.is_float() else column
    return [Value() if one is None else Value(**{field: one}) for one in known.to_list()]
