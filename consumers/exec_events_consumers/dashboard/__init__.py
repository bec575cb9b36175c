"""Pages of the tables, live: the server-rendered dashboard."""
