"""The processes that steps start to use up a resource or to keep a beat: each ends at the end of its standard input.

Standard library only, and as little of it as will do: what a worker imports delays the fault. `squall.actions.Worker`
and `PauseCycle` start them. The contract of a module here: `main()` reads its JSON configuration from `sys.argv[1]`,
sets itself up (joins the cgroups it was given), writes "ready" (or one line that says why not, and ends with status 1),
works, takes a new configuration as a line on standard input, and ends, leaving nothing, within a tenth of a second of
the end of standard input.
"""
