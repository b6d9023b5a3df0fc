"""GuideLens: the core of the AR shopping-guide platform. Importing it does no work and reads no environment."""

__version__ = "0.1.0"
