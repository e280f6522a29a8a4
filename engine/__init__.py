"""Running models: the Engine interface and what implements it. Imports protocol/ only."""
