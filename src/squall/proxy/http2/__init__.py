"""HTTP/2 on a connection: followed frame by frame, header blocks read, streams held, answered or changed one by one.

What no rule hits goes on as it came, windows, pings and priorities included: the two ends talk to each other, not to
the proxy. Standard library only, as all of the data plane. No listener, no API may enter.
"""
