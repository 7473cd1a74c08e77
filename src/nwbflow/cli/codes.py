"""How commands end."""

OK, FAILED, USAGE, BROKEN_LINKS, INTERRUPTED, PIPE_CLOSED, TERMINATED = 0, 1, 2, 3, 130, 141, 143
"""Exit codes. Those above 128 are a shell's for a program ended by a signal: 128 and its number."""

CODES = (
    f"Exit codes: {OK} all went well; {FAILED} failed, the reason is on standard error; {USAGE} the command line is "
    f"wrong; {BROKEN_LINKS} links are broken or changed (links check); {INTERRUPTED} interrupted (Ctrl-C); "
    f"{PIPE_CLOSED} nobody reads the output any more; {TERMINATED} told to end (SIGTERM)."
)
"""What every command's help says of them."""
