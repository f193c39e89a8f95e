"""Small requests, each on a connection of its own, and how long they took.

    python3 ping.py --host H --port P [--every MILLISECONDS] [--window SECONDS] [--bytes N]

The server is an echo. Prints one line for each window, in milliseconds, until it is killed.
"""

import argparse
import os
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit, error_name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=float, default=4)
    parser.add_argument("--window", type=float, default=1)
    parser.add_argument("--bytes", type=int, default=64)
    options = parser.parse_args()
    while True:
        took, errors = [], {}
        end = time.monotonic() + options.window
        while (started := time.monotonic()) < end:
            try:
                request(options)
            except OSError as error:
                errors[error_name(error)] = errors.get(error_name(error), 0) + 1
            seconds = time.monotonic() - started
            took.append(1000 * seconds)
            time.sleep(max(0, options.every / 1000 - seconds))
        took.sort()
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        emit(event="window", count=len(took), p50=p50, p99=p99, errors=errors)


def request(options):
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect((options.host, options.port))
        sock.sendall(bytes(options.bytes))
        received = 0
        while received < options.bytes:
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError
            received += len(data)


main()
