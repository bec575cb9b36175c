"""The record for a Learning Observer server: the frames it takes, how they get there, and what is made of them there."""
