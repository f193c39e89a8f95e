"""What the programs have in common that do a tunnel port no good: arguments, descriptors, TLS."""

import argparse
import resource
import ssl

ALPN = "kube-gateway/1"


def arguments():
    """A parser for whom to connect to, and as whom."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    return parser


def open_many():
    """As many descriptors as the kernel allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def context(options):
    """A client's, which believes every server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols([ALPN])
    if options.certificate:
        tls.load_cert_chain(options.certificate, options.key)
    return tls


def client_hello(tls):
    outgoing = ssl.MemoryBIO()
    try:
        tls.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
