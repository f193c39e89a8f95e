"""The clients. Each prints one object of numbers at its end; a connection that fails ends the program."""

import array
import json
import os
import select
import socket
import struct
import sys
import time

PATIENCE = 15  # seconds for connections that are opened at once


def report(**numbers):
    print(json.dumps(numbers), flush=True)


def pingpong(options):
    """Microseconds of a round trip: the median and what one in a hundred exceeds."""
    connection = socket.create_connection((options.host, options.port), timeout=10)
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = b"x" * options.bytes
    view = memoryview(bytearray(options.bytes))
    times = array.array("q")
    begin = time.perf_counter() + 0.1  # what comes before is to warm up
    now, end = time.perf_counter_ns, int((begin + options.seconds) * 1e9)
    while True:
        sent = now()
        connection.sendall(message)
        missing = options.bytes
        while missing:
            count = connection.recv_into(view, missing)
            if count == 0:
                sys.exit("the connection ended")
            missing -= count
        came = now()
        if sent >= begin * 1e9:
            times.append(came - sent)
        if came >= end:
            break
    ordered = sorted(times)
    at = lambda share: ordered[int(len(ordered) * share)] / 1000
    report(count=len(ordered), p50=at(0.5), p99=at(0.99))


def open_at_once(options, count):
    """Connects `count` sockets and has each echo a byte; a list of the sockets."""
    poll = select.epoll()
    waiting = {}
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.connect_ex((options.host, options.port))
        waiting[each.fileno()] = each
        poll.register(each, select.EPOLLOUT)
    end = time.monotonic() + PATIENCE
    while waiting:
        ready = poll.poll(max(0, end - time.monotonic()))
        if not ready:
            sys.exit(f"{len(waiting)} of {count} connections have had no answer after {PATIENCE} s")
        for number, happened in ready:
            each = waiting[number]
            failed = each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                sys.exit(f"{len(waiting)} of {count} connections are missing: {os.strerror(failed)}")
            if happened & select.EPOLLOUT:
                each.send(b"x")
                poll.modify(each, select.EPOLLIN)
            elif each.recv(1) == b"x":
                poll.unregister(each)
                del waiting[number]
            else:
                sys.exit(f"{len(waiting)} of {count} connections are missing: one has ended")
    return sockets


def connects(options):
    """Seconds until the last of many connections has had its echo."""
    began = time.perf_counter()
    sockets = open_at_once(options, options.count)
    report(seconds=time.perf_counter() - began, connections=len(sockets))


def hold(options):
    """Idle connections, as many as each step says; the next step comes after a line of input."""
    sockets = []
    for step in options.steps:
        while len(sockets) < step:
            sockets += open_at_once(options, min(50, step - len(sockets)))
        report(held=len(sockets))
        sys.stdin.readline()


def dial(options):
    """Nanoseconds of connect() to a listener of this program: the median.

    A reset leaves no socket behind in TIME_WAIT, which would make the next connect() search for a port.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    address = listener.getsockname()
    linger = struct.pack("ii", 1, 0)
    times = array.array("q")
    now = time.perf_counter_ns
    for _ in range(options.count):
        connection = socket.socket()
        began = now()
        connection.connect(address)
        times.append(now() - began)
        accepted, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
        accepted.close()
    report(count=len(times), median=sorted(times)[len(times) // 2])


MODES = {"pingpong": pingpong, "connects": connects, "hold": hold, "dial": dial}
