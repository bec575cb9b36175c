"""Makes the modules of this folder importable for its tests."""
