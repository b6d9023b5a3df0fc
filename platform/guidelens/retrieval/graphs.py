"""usearch's index, loaded after Ray.

Both bring a C++ library of their own. Where usearch's is loaded first, Ray ends the process as it starts (`std::regex_error`; ray 2.60,
usearch 2.26.6); the other way round both work.
"""

import ray  # noqa: F401 - before usearch
from usearch.index import Index

__all__ = ["Index"]
