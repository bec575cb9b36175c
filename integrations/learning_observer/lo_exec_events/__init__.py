"""A module for Learning Observer: what students run in Jupyter, reduced, and shown to their teacher."""
