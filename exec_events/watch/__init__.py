"""Kernel messages in, executions out: every way a request can reach a kernel of this server is tapped here."""
