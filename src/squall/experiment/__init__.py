"""DEFINE: the experiment document, its safe defaults, and how a file becomes one or is refused whole.

`model` is what an experiment is, `checks` what must be true of it as a whole, `document` reads and writes it, `schema`
describes it to editors, `adhoc` builds one for a single fault. Nothing here touches a machine.
"""
