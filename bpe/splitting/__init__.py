"""How text is split into pretokens: the steps, and the compiler from a pattern's text to a program for the core.

``steps.py`` names the steps, ``parse.py`` reads a pattern in its dialect into the tree of ``tree.py``, ``emit.py``
turns the tree into the program of ``program.py``, which the core validates and runs.
"""
