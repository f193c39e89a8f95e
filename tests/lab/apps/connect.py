"""A client: each mode is one use that an application makes of TCP."""

import collections
import concurrent.futures
import errno
import itertools
import json
import select
import socket
import time
import uuid

import udp
from dial import dial, redial
from stream import Received, duplex, emit, end_of, error_name, reset, send_stream


def run(options):
    try:
        return MODES[options.mode](options)
    except OSError as error:
        emit(event="error", errno=error_name(error), text=str(error))
        return 1


def peer(options):
    with dial(options) as sock:
        mine = end_of(sock)
        answer = Received().read_to_end(sock).head
    emit(event="peer", **mine, server=json.loads(answer) if answer else None)
    return 0 if answer else 1


def who(options):
    """Says one line by whatever kind of socket, and tells what that shows of both ends."""
    with dial(options) as sock:
        if options.then:
            redial(sock, options)
        line = (options.text or "hello").encode()
        if options.how != "fastopen":  # which has sent it already
            sock.sendall(line + b"\n")
        answer = read_line(sock)
        emit(event="who", **end_of(sock), answer=answer.decode())
    return 0 if answer == b"got " + line else 1


def echo(options):
    with dial(options) as sock, sock.makefile("rb") as lines:
        banner = lines.readline().decode().rstrip("\n") if options.banner else None
        text = options.text or "hello"
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        reply = lines.read().decode(errors="replace")
    emit(event="echo", banner=banner, reply=reply)
    return 0 if reply == text else 1


def send(options):
    """Sends lines for ever, or --count of them; a failure is told, and the next line dials again."""
    sent = answered = failed = connections = 0
    sock = None
    for number in itertools.count(1):
        started = time.monotonic()
        text = f"{options.text or 'hello'} {number}"
        try:
            if sock is None:
                sock = dial(options)
                connections += 1
            sock.sendall(text.encode() + b"\n")
            sent += 1
            if not options.no_reply:
                if read_line(sock) != b"got " + text.encode():
                    raise ConnectionError(errno.EPROTO, "a wrong answer")
                answered += 1
            emit(event="sent", number=number, text=text, connection=connections)
        except OSError as error:
            failed += 1
            emit(event="failed", number=number, errno=error_name(error), connection=connections)
            sock = hang_up(sock)
        if options.new_connection:
            sock = hang_up(sock)
        if number == options.count:
            break
        time.sleep(max(0, options.every / 1000 - (time.monotonic() - started)))
    hang_up(sock)
    emit(event="end", sent=sent, answered=answered, failed=failed, connections=connections)
    return 1 if failed else 0


def hang_up(sock):
    if sock:
        sock.close()


def read_line(sock):
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(4096)
        if not data:
            raise ConnectionError(errno.ENODATA, "EOF instead of an answer")
        line += data
    return line[:-1]


def both_ways(options):
    with dial(options) as sock:
        started = time.monotonic()
        result = duplex(sock, options.seed, options.bytes)
        emit(event="duplex", **result, seconds=time.monotonic() - started)
    return 0


def half_close(options):
    with dial(options) as sock:
        digest = send_stream(sock, options.seed, options.bytes)
        sock.shutdown(socket.SHUT_WR)
        received = Received().read_to_end(sock)
    emit(
        event="halfclose",
        sent=options.bytes,
        sentSha256=digest,
        received=received.count,
        receivedSha256=received.sha256,
        head=received.head.decode(errors="replace") if received.count <= 1024 else None,
    )
    return 0


def exchange_token(sock):
    """Whether the server echoes a token that no other connection has, and then ends."""
    token = uuid.uuid4().hex.encode()
    sock.sendall(token)
    sock.shutdown(socket.SHUT_WR)
    answer = Received().read_to_end(sock).head
    if answer != token:
        raise ConnectionError(errno.EPROTO, f"echoed {len(answer)} bytes, not the token")


def many(options):
    def one(_):
        try:
            with dial(options) as sock:
                exchange_token(sock)
            return None
        except OSError as error:
            return error_name(error)

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.concurrency) as pool:
        ends = collections.Counter(pool.map(one, range(options.connections)))
    return tell_counts("many", ends, started)


def burst(options):
    """Opens all connections at the same time; the first byte is sent when all are established."""
    started = time.monotonic()
    ends = collections.Counter()
    opening, established = [], []
    for _ in range(options.connections):
        try:
            opening.append(dial(options, nonblocking=True))
        except OSError as error:
            ends[error_name(error)] += 1
    for sock in opening:
        if code := wait_connected(sock, options.timeout):
            ends[code] += 1
        else:
            established.append(sock)
    emit(event="established", count=len(established), seconds=time.monotonic() - started)
    for sock in established:
        try:
            exchange_token(sock)
            ends[None] += 1
        except OSError as error:
            ends[error_name(error)] += 1
    for sock in opening:
        sock.close()
    return tell_counts("burst", ends, started)


def wait_connected(sock, timeout):
    """None when the connection is established, else the name of its error."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(timeout * 1000):
        return "timeout"
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.settimeout(timeout)
    return errno.errorcode[code] if code else None


def tell_counts(event, ends, started):
    ok = ends.pop(None, 0)
    failed = sum(ends.values())
    emit(event=event, ok=ok, failed=failed, errors=dict(ends), seconds=time.monotonic() - started)
    return 1 if failed else 0


def expect_reset(options):
    """Tells how a connection ends; whatever it is, it is an answer and not a failure."""
    received = Received()
    try:
        with dial(options) as sock:
            if options.text:
                sock.sendall(options.text.encode())
            received.read_to_end(sock)
        end, name = "eof", None
    except OSError as error:
        name = error_name(error)
        end = ENDS.get(name, "error")
    emit(event="expect-reset", end=end, errno=name, received=received.count)
    return 0


ENDS = {
    "ECONNRESET": "reset",
    "EPIPE": "reset",
    "ECONNREFUSED": "refused",
    "ETIMEDOUT": "timeout",
    "timeout": "timeout",
}


def send_reset(options):
    sock = dial(options)
    digest = send_stream(sock, options.seed, options.bytes or 1)
    reset(sock)
    emit(event="reset", sent=options.bytes or 1, sentSha256=digest)
    return 0


def empty(options):
    dial(options).close()
    emit(event="empty")
    return 0


MODES = {
    "peer": peer,
    "who": who,
    "udp": udp.client,
    "echo": echo,
    "send": send,
    "duplex": both_ways,
    "halfclose": half_close,
    "many": many,
    "burst": burst,
    "expect-reset": expect_reset,
    "reset": send_reset,
    "empty": empty,
}
