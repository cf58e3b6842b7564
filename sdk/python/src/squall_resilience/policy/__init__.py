"""Patterns composed per dependency in a checked order, by code or by a settings file that is applied live.

`order` says where each link belongs and why; `chain` is the policy; `trace` and `explain` show where a fault stopped;
`live`, `files`, `overlay` and `watching` bring a settings file in force.
"""
