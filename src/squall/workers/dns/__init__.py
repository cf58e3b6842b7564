"""A stand-in resolver beside a target: which queries are hit, what they get, and how all others are passed on."""
