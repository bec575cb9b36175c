"""The verbs of ``exec-events`` that read the record on and on; each is a module, imported when it is called."""
