"""Makes the modules of this folder importable for every test below it."""
