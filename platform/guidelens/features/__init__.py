"""The feature store of a home: feature tables, point-in-time frames, the online store. The only importer of feast in the core.

feast takes seconds to import, so it is imported when a store is opened, once a process.
"""

from guidelens.features.online import OnlineReader, StockAndPrice
from guidelens.features.store import ENTITY_COLUMNS, LOG, Features, MaterializeReport, ViewStatus, feature_repo_path

__all__ = ["ENTITY_COLUMNS", "LOG", "Features", "MaterializeReport", "OnlineReader", "StockAndPrice", "ViewStatus", "feature_repo_path"]
