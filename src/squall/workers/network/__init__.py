"""Workers that hold programs on network interfaces: which packets are hit, and what becomes of them."""
