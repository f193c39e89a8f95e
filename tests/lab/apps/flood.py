"""Connections that begin something and never finish it, and how long each was put up with.

    python3 flood.py --host H --port P --connections N --until tcp|hello|open [--certificate F --key F --send HEX]

Goes as far as a TCP connection, as half a ClientHello, or as a handshake and --send. Prints one line when all
are there, and one when all are gone: how many were refused at once, how many were held, and for how long.
"""

import argparse
import os
import resource
import select
import socket
import ssl
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit

AT_ONCE = 1.0  # seconds


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--until", choices=["tcp", "hello", "open"], required=True)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--send", default="")
    options = parser.parse_args()

    poll, since, lives = select.epoll(), {}, []
    refused = 0
    context = tls_context(options)
    for _ in range(options.connections):
        try:
            sock = begin(options, context)
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


def tls_context(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["kube-gateway/1"])
    if options.certificate:
        context.load_cert_chain(options.certificate, options.key)
    return context


def begin(options, context):
    sock = socket.create_connection((options.host, options.port), timeout=10)
    if options.until == "hello":
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            context.wrap_bio(incoming, outgoing).do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
        sock.sendall(hello[: len(hello) // 2])
    elif options.until == "open":
        sock = context.wrap_socket(sock)
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
