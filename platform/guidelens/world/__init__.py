"""The simulated shop: files like a real shop's, and, apart from them, the truth to score against."""

from guidelens.world.blueprint import RealCatalogue
from guidelens.world.generate import WorldPaths, generate
from guidelens.world.parameters import WORLD_V1, WORLD_V2, People, Trouble, WorldParameters
from guidelens.world.policy import GuidePolicy, Observed
from guidelens.world.trouble import read_faults
from guidelens.world.world import ArSessions, World

__all__ = [
    "WORLD_V1",
    "WORLD_V2",
    "ArSessions",
    "GuidePolicy",
    "Observed",
    "People",
    "RealCatalogue",
    "Trouble",
    "World",
    "WorldParameters",
    "WorldPaths",
    "generate",
    "read_faults",
]
