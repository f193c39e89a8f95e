"""The benchmark's own programs: ordinary sockets, the same for all contenders.

    python3 apps echo     --port P                    answers every byte
    python3 apps pingpong --host H --port P           round trips of 64 bytes on one connection
    python3 apps connects --host H --port P           many connections at once
    python3 apps hold     --host H --port P           idle connections, more after each line of input
    python3 apps dial                                 connect() to a listener of its own, in a loop

Each prints JSON objects, one a line; clients a last one of numbers. They exit with 0 on success.
"""

import argparse
import gc
import resource

import client
import echo


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # it would show among the slowest round trips

    parser = argparse.ArgumentParser(prog="apps")
    modes = parser.add_subparsers(required=True)
    for name, run in {"echo": echo.serve, **client.MODES}.items():
        mode = modes.add_parser(name)
        mode.set_defaults(run=run)
        mode.add_argument("--host", default="127.0.0.1")
        mode.add_argument("--port", type=int)
        mode.add_argument("--seconds", type=float, default=1, help="pingpong: how long")
        mode.add_argument("--bytes", type=int, default=64, help="pingpong: each way")
        mode.add_argument("--count", type=int, default=1000, help="connects, dial: how many")
        mode.add_argument("--steps", type=int, nargs="+", help="hold: how many, one after the other")
    options = parser.parse_args()
    options.run(options)


main()
