"""What lies in the database and how it gets there: the server, the tables, the writes, the indexes.

``embedded`` starts a private server, ``engine`` connects to any, ``schema`` declares the tables,
``catalog`` knows which spaces exist, ``writer`` stores documents with their chunks, ``indexes`` builds
vector indexes. Nothing here knows how a vector is made.
"""
