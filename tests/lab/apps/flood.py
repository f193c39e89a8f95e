"""Connections that begin something and never finish it, and how long each was put up with.

    python3 flood.py --host H --port P --connections N --until tcp|hello|open [--certificate F --key F --send HEX]

Goes as far as a TCP connection, as half a ClientHello, or as a handshake and --send. Prints one line when all
are there, and one when all are gone: how many were refused at once, how many were held, and for how long.
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

AT_ONCE = 1.0  # seconds


def main():
    open_many()
    parser = arguments()
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--until", choices=["tcp", "hello", "open"], required=True)
    parser.add_argument("--send", default="")
    options = parser.parse_args()

    poll, since, lives = select.epoll(), {}, []
    refused = 0
    tls = context(options)
    for _ in range(options.connections):
        try:
            sock = begin(options, tls)
        except OSError:
            refused += 1
            continue
        sock.setblocking(False)
        since[sock.fileno()] = (sock, time.monotonic())
        poll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
        refused += gone(poll, since, lives, 0)
    refused += gone(poll, since, lives, AT_ONCE)
    emit(event="there", held=len(since) + len(lives), refused=refused)
    while since:
        gone(poll, since, lives, -1)
    lives = lives or [0]
    emit(event="gone", held=len(lives), refused=refused, shortest=min(lives), longest=max(lives))


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
    """Notes which connections have ended, within some seconds: how many of them at once."""
    at_once = 0
    deadline = time.monotonic() + seconds
    while True:
        events = poll.poll(-1 if seconds < 0 else max(0, deadline - time.monotonic()))
        for descriptor, _ in events:
            sock, start = since[descriptor]
            if not has_ended(sock):
                continue
            del since[descriptor]
            life = time.monotonic() - start
            sock.close()
            if life < AT_ONCE:
                at_once += 1
            else:
                lives.append(life)
        if seconds <= 0 or time.monotonic() >= deadline:
            return at_once


def has_ended(sock):
    try:
        return sock.recv(65536) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


main()
