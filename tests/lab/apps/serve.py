"""A server: one thread for each connection, so that a mode reads like the story of one of them."""

import itertools
import json
import os
import signal
import socket
import threading

import udp
from dial import IPPROTO_MPTCP
from stream import Received, duplex, emit, end_of, error_name, reset, send_stream


def run(options):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.mode == "udp":
        return udp.serve(options)
    threading.stack_size(256 * 1024)
    listener = listen(options)
    emit(event="listening", port=options.port)
    serve = MODES[options.mode]
    for number in itertools.count(1):
        conn, peer = listener.accept()
        threading.Thread(target=guard, args=(serve, conn, peer, number, options), daemon=True).start()


def listen(options):
    family = socket.AF_INET if options.address and ":" not in options.address else socket.AF_INET6
    protocol = IPPROTO_MPTCP if options.mptcp else 0
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if options.address else 0)
    listener.bind((options.address or "::", options.port))
    listener.listen(4096)
    return listener


def guard(serve, conn, peer, number, options):
    try:
        with conn:
            serve(conn, peer, number, options)
    except OSError as error:
        emit(event="error", connection=number, errno=error_name(error))


def echo(conn, peer, number, options):
    while data := conn.recv(1 << 16):
        conn.sendall(data)


def banner(conn, peer, number, options):
    conn.sendall(options.text.encode() + b"\n")
    echo(conn, peer, number, options)


def sink(conn, peer, number, options):
    received = Received().read_to_end(conn)
    result = {"sha256": received.sha256, "count": received.count}
    conn.sendall(json.dumps(result).encode() + b"\n")
    emit(event="sink", connection=number, **result)


def hello(conn, peer, number, options):
    """Answers each line, so that its client knows that it came."""
    with conn.makefile("rb") as lines:
        for line in lines:
            text = line.decode(errors="replace").rstrip("\n")
            who = list(conn.getpeername()[:2])
            emit(event="message", connection=number, text=text, accept=list(peer[:2]), getpeername=who)
            conn.sendall(b"got " + line)
    emit(event="end", connection=number)


def tell_peer(conn, peer, number, options):
    result = {"accept": list(peer[:2]), **end_of(conn)}
    conn.sendall(json.dumps(result).encode() + b"\n")
    emit(event="peer", connection=number, **result)


def send_reset(conn, peer, number, options):
    if options.at == "byte":
        conn.recv(1)
    reset(conn)


def close_at_once(conn, peer, number, options):
    pass


def answer_after_end(conn, peer, number, options):
    received = Received().read_to_end(conn)
    digest = send_stream(conn, options.seed, options.bytes)
    emit(
        event="halfclose",
        connection=number,
        received=received.count,
        receivedSha256=received.sha256,
        sent=options.bytes,
        sentSha256=digest,
    )


def both_ways(conn, peer, number, options):
    emit(event="duplex", connection=number, **duplex(conn, options.seed, options.bytes))


def hold(conn, peer, number, options):
    emit(event="hold", connection=number)
    threading.Event().wait()


MODES = {
    "echo": echo,
    "banner": banner,
    "sink": sink,
    "hello": hello,
    "peer": tell_peer,
    "reset": send_reset,
    "close": close_at_once,
    "halfclose": answer_after_end,
    "duplex": both_ways,
    "hold": hold,
    "udp": None,
}
