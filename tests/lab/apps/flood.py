"""Connections that begin something and never finish it, and how long each was put up with.

    python3 flood.py --host H --port P --connections N --until tcp|hello|open --deadline S
        [--certificate F --key F --send HEX]

Goes as far as a TCP connection, as half a ClientHello, or as a handshake and --send. Prints one line when all
have begun, and one when all are gone: how many lasted until the deadline, how long, and how many were dropped before.
"""

import os
import select
import socket
import ssl
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from intruder import arguments, client_hello, context, open_many
from stream import emit

SETTLE_SECONDS = 1.0


def main():
    open_many()
    parser = arguments()
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--until", choices=["tcp", "hello", "open"], required=True)
    parser.add_argument("--deadline", type=float, required=True, help="seconds")
    parser.add_argument("--send", default="")
    options = parser.parse_args()

    poll, since, lives = select.epoll(), {}, []
    tls = context(options)
    for _ in range(options.connections):
        try:
            sock = begin(options, tls)
        except OSError:
            lives.append(0)
            continue
        sock.setblocking(False)
        since[sock.fileno()] = (sock, time.monotonic())
        poll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
        gone(poll, since, lives, 0)
    gone(poll, since, lives, SETTLE_SECONDS)
    emit(event="there", open=len(since))
    while since:
        gone(poll, since, lives, -1)
    held = [life for life in lives if life > options.deadline - 1] or [0]
    emit(event="gone", held=len(held), dropped=len(lives) - len(held), shortest=min(held), longest=max(held))


def begin(options, tls):
    sock = socket.create_connection((options.host, options.port), timeout=10)
    if options.until == "hello":
        hello = client_hello(tls)
        sock.sendall(hello[: len(hello) // 2])
    elif options.until == "open":
        sock = tls.wrap_socket(sock)
        sock.sendall(bytes.fromhex(options.send))
    return sock


def gone(poll, since, lives, seconds):
    """Notes how long those have lived that end within some seconds; of those that come next when negative."""
    deadline = time.monotonic() + seconds
    while True:
        events = poll.poll(-1 if seconds < 0 else max(0, deadline - time.monotonic()))
        for descriptor, _ in events:
            sock, start = since[descriptor]
            if not has_ended(sock):
                continue
            del since[descriptor]
            lives.append(time.monotonic() - start)
            sock.close()
        if seconds <= 0 or time.monotonic() >= deadline:
            return


def has_ended(sock):
    try:
        return sock.recv(65536) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


main()
