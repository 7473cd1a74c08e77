"""Run ``nwbflow`` commands in processes forked from one that has imported it: each as if started by a shell.

One request a line on standard input: ``{"args": [...], "folder": ..., "out": file, "err": file, "columns": n}``;
one answer a line on standard output: ``{"code": n}``.
"""

import gc
import json
import os
import sys

from nwbflow.cli import main


def run(request):
    """Become the command."""
    os.chdir(request["folder"])
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o644), number)
    os.environ["COLUMNS"] = str(request["columns"])
    sys.exit(main(request["args"]))


gc.freeze()  # children need not sort out at their end what they never touched
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(json.loads(line))
    _, status = os.waitpid(child, 0)
    sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
    sys.stdout.flush()
