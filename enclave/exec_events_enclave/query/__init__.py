"""
Declared queries on protected data: JSON in, an answer that the policy's rules let through out.

``model`` reads a query, ``overlap`` compares it with earlier ones, ``lane`` debits, decides and keeps; ``worker`` is
the process that alone opens the data: ``frame`` loads it, ``rules`` or ``noise`` protect it, ``rounding`` ends it.
"""
