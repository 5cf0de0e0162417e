"""From records and changed rows to stored chunks with their vectors and words.

::

    records (files, mappings) -------> documents ----+
    rows that a transaction changed -> transaction --+--> batch: cut, look up, encode --> store
    rows that workers have claimed --> job ----------+
"""
