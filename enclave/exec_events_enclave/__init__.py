"""The enclave: code runs on data that its author cannot see, and what it prints is held until a steward releases it."""
