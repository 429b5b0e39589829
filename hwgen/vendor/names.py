"""What IP catalogues call the accelerator."""

VENDOR, LIBRARY, VERSION = "hwgen", "ip", "1.0"
"""With the name ``accelerator`` between library and version: ``hwgen:ip:accelerator:1.0``."""
