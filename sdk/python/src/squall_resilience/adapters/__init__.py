"""Client libraries through a policy, and pools whose sizes change live; each imports its library, and nothing else.

What a pattern must know of HTTP (which answers are failures, what may be sent twice) is in `http_rules`; the modules beside
it only fit it to one library: `httpx` and `httpx2`, `aiohttp`, `requests`, `http_client` (the standard library's),
`sqlalchemy`, `psycopg`.
"""
