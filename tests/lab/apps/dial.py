"""How a client comes to its connection: the ways that an application may choose."""

import contextlib
import ctypes
import os
import select
import socket

WAYS = ["plain", "nonblocking", "device", "fastopen", "fastopen-connect", "mptcp"]

IPPROTO_MPTCP = 262  # linux/in.h
TCP_FASTOPEN_CONNECT = 30  # linux/tcp.h


def dial(options, nonblocking=False):
    host = mapped(options.host, options)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    protocol = IPPROTO_MPTCP if options.how == "mptcp" else 0
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if options.bind:
            sock.bind((mapped(options.bind, options), 0))
        if options.how == "device":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        if options.how == "fastopen-connect":
            sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.settimeout(0 if nonblocking or options.how == "nonblocking" else options.timeout)
        if options.how == "fastopen":
            line = (options.text or "hello").encode() + b"\n"
            # Blocking: without a cookie a non-blocking sendto() would connect and send nothing.
            sock.settimeout(None)
            sock.sendto(line, socket.MSG_FASTOPEN, (host, options.port))
            sock.settimeout(options.timeout)
        else:
            sock.connect((host, options.port))
    except BlockingIOError:
        if options.how == "nonblocking":
            wait_connected(sock, options)
    except OSError:
        # One that is to be dialled again may fail at first.
        if not options.then:
            sock.close()
            raise
    return sock


def redial(sock, options):
    """Dials --then by a socket that has been used before: after a failure, or an end, or neither."""
    host, _, port = options.then.rpartition(":")
    with contextlib.suppress(OSError):
        sock.recv(1)
    with contextlib.suppress(OSError):
        disconnect(sock)
    sock.settimeout(options.timeout)
    sock.connect((mapped(host, options), int(port)))


def disconnect(sock):
    """connect(2): a socket is dissolved from its peer by connecting it to AF_UNSPEC."""
    unspecified = bytes(28)
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), unspecified, len(unspecified)) != 0:
        raise OSError(ctypes.get_errno(), "connect to AF_UNSPEC")


def wait_connected(sock, options):
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll(options.timeout * 1000)
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.settimeout(options.timeout)


def mapped(address, options):
    return f"::ffff:{address}" if options.mapped else address
