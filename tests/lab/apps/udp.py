"""One datagram there and one back."""

import json
import socket

from stream import emit


def serve(options):
    family = socket.AF_INET6 if ":" in (options.address or "::") else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((options.address or "::", options.port))
    emit(event="listening", port=options.port)
    while True:
        text, source = sock.recvfrom(65536)
        sock.sendto(json.dumps({"text": text.decode(), "source": list(source[:2])}).encode(), source)


def client(options):
    """The datagram goes by a connected socket, as resolvers send theirs."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(options.timeout)
        sock.connect((options.host, options.port))
        sock.send((options.text or "hello").encode())
        answer = json.loads(sock.recv(65536))
        mine, other = list(sock.getsockname()[:2]), list(sock.getpeername()[:2])
    emit(event="udp", getsockname=mine, getpeername=other, server=answer)
    return 0
