"""From the bytes of a file to its text, a module for each format.

Each is loaded by its path into a process apart (`program`), and has one function, ``extract(data)``. It returns
``title``, ``text`` and ``metadata``, or ``refused``: why there is no text. Nothing of pgneural is imported here, so
that the process starts within a fraction of a second. In a text with pages, slides or sheets a form feed ends each.
"""
