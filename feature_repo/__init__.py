"""The Feast repository: what features there are, and the stores Feast keeps them in. Imports feast and schemas only."""
