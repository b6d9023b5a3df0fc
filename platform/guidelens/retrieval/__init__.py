"""Finding products: by vector, and by words in Chinese and English. Knows nothing of shoppers, of models or of how vectors are made."""

from guidelens.retrieval.texts import TextIndex
from guidelens.retrieval.vectors import VectorIndex

__all__ = ["TextIndex", "VectorIndex"]
