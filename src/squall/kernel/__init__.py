"""The one gateway to Linux: /proc, pidfds, cgroups, prctl, starting small Python processes. Standard library only.

Nothing above this room reads /proc or calls the system by number. Pure reading is apart from what needs privilege.
"""
