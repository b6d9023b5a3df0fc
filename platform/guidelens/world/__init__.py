"""The simulated shop: files like a real shop's, and, apart from them, the truth to score against."""

from guidelens.world.generate import RealCatalogue, WorldPaths, generate
from guidelens.world.parameters import WORLD_V1, WorldParameters
from guidelens.world.policy import GuidePolicy, Observed
from guidelens.world.world import ArSessions, World

__all__ = ["WORLD_V1", "ArSessions", "GuidePolicy", "Observed", "RealCatalogue", "World", "WorldParameters", "WorldPaths", "generate"]
