"""Arrays to bytes and back, outside HDF5."""
