"""A relay that does not keep to the rules: any certificate, any bytes, as client or as server.

    python3 hostile.py connect --host H --port P [--certificate F --key F] [--send HEX]...
    python3 hostile.py listen  --host H --port P --certificate F --key F [--send HEX]...

Sends each --send in a TLS write of its own (or in clear with --plain), then reads to the end. Prints one
JSON object for a connection: how the handshake went, what came, and how it ended.
"""

import argparse
import collections
import os
import socket
import ssl
import sys

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit, error_name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["connect", "listen"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bind", help="a client's own address")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--plain", action="store_true", help="no TLS at all")
    parser.add_argument("--tls12", action="store_true", help="no TLS beyond 1.2")
    parser.add_argument("--alpn", default="kube-gateway/1", help="empty: offer none")
    parser.add_argument("--send", action="append", default=[], metavar="HEX")
    parser.add_argument("--turns", action="store_true", help="a client reads after, a server before each --send")
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument("--times", type=int, help="a client: so often, and one JSON object for all")
    options = parser.parse_args()
    if options.role == "connect" and options.times:
        return emit(event="conversations", **summary(options))
    if options.role == "connect":
        emit(event="conversation", **converse(connect(options), options))
        return
    listener = socket.create_server((options.host, options.port), family=family(options.host))
    emit(event="listening", port=options.port)
    while True:
        emit(event="conversation", **converse(listener.accept()[0], options))


def summary(options):
    all = [converse(connect(options), options) for _ in range(options.times)]
    ends = collections.Counter(one["end"] for one in all)
    return {"received": "".join(one["received"] for one in all), "ends": dict(ends)}


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def connect(options):
    sock = socket.socket(family(options.host))
    if options.bind:
        sock.bind((options.bind, 0))
    sock.settimeout(options.timeout)
    sock.connect((options.host, options.port))
    return sock


def context(options):
    made = ssl.SSLContext(
        ssl.PROTOCOL_TLS_CLIENT if options.role == "connect" else ssl.PROTOCOL_TLS_SERVER
    )
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if options.certificate:
        made.load_cert_chain(options.certificate, options.key)
    if options.tls12:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
    if options.alpn:
        made.set_alpn_protocols([options.alpn])
    return made


def converse(sock, options):
    sock.settimeout(options.timeout)
    handshake, received = None, b""
    try:
        if not options.plain:
            sock = context(options).wrap_socket(sock, server_side=options.role == "listen")
            handshake = sock.version()
        for text in options.send:
            if options.turns and options.role == "listen":
                received += sock.recv(65536)
            sock.sendall(bytes.fromhex(text))
            if options.turns and options.role == "connect":
                received += sock.recv(65536)
        while data := sock.recv(65536):
            received += data
        end = "eof"
    except ssl.SSLError as error:
        end = error.reason or str(error)
    except OSError as error:
        end = error_name(error)
    finally:
        sock.close()
    return {"handshake": handshake, "received": received.hex(), "end": end}


main()
