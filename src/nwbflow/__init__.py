"""nwbflow: advanced data I/O for NWB, through PyNWB."""
