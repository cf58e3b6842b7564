"""DEFINE: the experiment document, its safe defaults, and how a file becomes one or is refused whole."""
