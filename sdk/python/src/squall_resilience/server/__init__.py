"""The serving side: requests of different priority in pools of their own, shedding, and a server's own metrics.

`pools` decides and holds the slots (also for plain threaded servers), `asgi` and `wsgi` put it before an application,
`metrics` measures requests and shows every number of the process.
"""
