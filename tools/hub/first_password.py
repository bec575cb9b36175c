"""
A password for FirstUseAuthenticator, from standard input, before anybody else on this machine can choose one.

Run with the Hub's Python: first_password.py FILE NAME. Exits with 3 where that name has one already.
"""

import dbm
import sys

import bcrypt

path, name = sys.argv[1:]
password = sys.stdin.read()
with dbm.open(path, "c", 0o600) as passwords:
    if name.encode() in passwords:
        sys.exit(3)
    passwords[name.encode()] = bcrypt.hashpw(password.encode(), bcrypt.gensalt())
