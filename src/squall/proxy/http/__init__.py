"""HTTP/1.1 on a proxied connection: framing, rules, and what makes rules real on the bytes.

Messages are told apart without being taken apart: a message that no rule hits passes byte for byte as it came. No socket
and no timer may enter `heads`, `bodies` and `rules`.
"""
