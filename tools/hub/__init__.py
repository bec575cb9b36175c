"""`make hub`: JupyterHub on this machine, with the recorder in every user's server."""
