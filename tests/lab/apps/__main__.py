"""The programs that run in the lab's pods: ordinary sockets, nothing of kube-gateway's.

    python3 apps serve   --mode MODE --port P
    python3 apps connect --mode MODE --host H --port P

They print JSON objects, one a line, and exit with 0 on success.
"""

import argparse
import resource
import sys

import connect
import dial
import serve
from stream import SEED


def main():
    # A thousand connections need more than the usual soft limit of 1024 files.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    parser = argparse.ArgumentParser(prog="apps")
    commands = parser.add_subparsers(required=True)

    server = commands.add_parser("serve")
    server.set_defaults(run=serve.run)
    server.add_argument("--mode", choices=sorted(serve.MODES), default="echo")
    server.add_argument("--address", help="one address instead of both families")
    server.add_argument("--mptcp", action="store_true", help="listen as programs in Go 1.24 do")
    server.add_argument("--at", choices=["accept", "byte"], default="byte", help="when mode reset resets")
    server.add_argument("--text", default="welcome", help="the line of mode banner")

    client = commands.add_parser("connect")
    client.set_defaults(run=connect.run)
    client.add_argument("--mode", choices=sorted(connect.MODES), default="echo")
    client.add_argument("--host", required=True)
    client.add_argument("--how", choices=dial.WAYS, default="plain", help="how the socket is connected")
    client.add_argument("--then", metavar="HOST:PORT", help="mode who: dial that next by the same socket")
    client.add_argument("--mapped", action="store_true", help="dial ::ffff:HOST by an IPv6 socket")
    client.add_argument("--bind", metavar="ADDRESS", help="bind to it before connecting")
    client.add_argument("--timeout", type=float, default=30, help="seconds for each socket call")
    client.add_argument("--text", help="what modes echo, send and expect-reset send")
    client.add_argument("--banner", action="store_true", help="mode echo reads a line first")
    client.add_argument("--every", type=float, default=200, help="mode send: milliseconds between lines")
    client.add_argument("--count", type=int, default=0, help="mode send: lines, 0 for no end")
    client.add_argument("--new-connection", action="store_true", help="mode send: one for each line")
    client.add_argument("--no-reply", action="store_true", help="mode send: do not wait for an answer")
    client.add_argument("--connections", type=int, default=100)
    client.add_argument("--concurrency", type=int, default=50)

    for command in (server, client):
        command.add_argument("--port", type=int, required=True)
        command.add_argument("--bytes", type=int, default=0, help="how much to send")
        command.add_argument("--seed", type=int, default=SEED, help="of what is sent")

    options = parser.parse_args()
    sys.exit(options.run(options))


main()
