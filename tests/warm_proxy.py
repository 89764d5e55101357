"""
Stands in for a process that a warm interpreter forks: ``python -I -S warm_proxy.py SOCKET <arguments of Python>``.

Its streams, environment and folder become those of the fork. Signals go on to that, its end is this one's end, and if
this one is killed, so is the fork.
"""

import json
import os
import signal
import socket
import sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
socket.send_fds(connection, [b"\0"], [0, 1, 2])
job = {"arguments": sys.argv[2:], "environment": dict(os.environ), "folder": os.getcwd()}
connection.sendall(json.dumps(job).encode() + b"\n")
answers = connection.makefile()
pid = int(answers.readline())
for forwarded in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(forwarded, lambda number, _frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
