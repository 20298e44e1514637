"""A library with a synchronous and an asynchronous face, and its uses: see README.md."""
