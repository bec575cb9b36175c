"""The record for a Learning Observer server: its frames, how they get there, and what is made of them there."""
