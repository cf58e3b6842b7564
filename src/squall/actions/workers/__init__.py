"""The processes that `Worker` and `PauseCycle` start: standard library only, each ends at the end of its standard input.

Contract of a module here: `main()` reads its JSON configuration from `sys.argv[1]`, sets itself up (joins the cgroups it
was given), writes "ready" (or one line that says why not, and ends with status 1), works, takes a new configuration as
a line on standard input, and ends, leaving nothing, within a tenth of a second of the end of standard input.
"""
