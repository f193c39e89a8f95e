"""A server that answers every byte: one thread, so that thousands of connections cost it little."""

import json
import select
import socket


def serve(options):
    listener = socket.create_server(("", options.port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections = {}
    print(json.dumps({"event": "listening"}), flush=True)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                accept_all(listener, poll, connections)
            elif not answered(connections[number]):
                connections.pop(number).close()


def accept_all(listener, poll, connections):
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)


def answered(connection):
    """False at the connection's end. What is asked is short: it always fits the socket."""
    try:
        data = connection.recv(65536)
        return bool(data) and connection.send(data) == len(data)
    except OSError:
        return False
