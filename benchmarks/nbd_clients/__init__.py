"""NBD clients that nbd_client.py runs, each in the Python that has its library."""
