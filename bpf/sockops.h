/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * note_flow, on the events of a pod's TCP sockets: what the relay has to know of a connection when it is made, and the
 * application of one when it arrives.
 */
#pragma once

#include "address.h"
#include "constants.h"

static __always_inline struct address local_address6(struct bpf_sock_ops *ops)
{
	return (struct address){ .words = { WORD(ops->local_ip6[0]), WORD(ops->local_ip6[1]),
					    WORD(ops->local_ip6[2]), WORD(ops->local_ip6[3]) } };
}

/* A connection, by both of its ends. */
struct connection {
	struct socket_key from;
	struct endpoint to;
};

/* From the remote end to the local one. */
static __always_inline struct connection to_local(struct bpf_sock_ops *ops)
{
	struct address remote = { .words = { WORD(ops->remote_ip6[0]), WORD(ops->remote_ip6[1]),
					     WORD(ops->remote_ip6[2]), WORD(ops->remote_ip6[3]) } };
	struct address local = local_address6(ops);
	struct address remote4 = mapped(WORD(ops->remote_ip4));
	struct address local4 = mapped(WORD(ops->local_ip4));
	struct connection now = {};

	/* Both are read in any case, so that clang makes no one place of two in the context. */
	now.from.endpoint.address = ops->family == AF_INET ? remote4 : remote;
	now.to.address = ops->family == AF_INET ? local4 : local;
	now.from.netns_cookie = bpf_get_netns_cookie(ops);
	now.from.endpoint.port = bpf_htons((__u16)bpf_ntohl(ops->remote_port)); /* in the upper half, network byte order */
	now.to.port = bpf_htons((__u16)ops->local_port);			/* in host byte order */
	return now;
}

/* What the relay has noted of a connection, if it is its own. */
static __always_inline struct origin *origin_of(const struct connection *now)
{
	struct origin *origin = bpf_map_lookup_elem(&origins, &now->from);

	/* A process of the pod may connect from the relay's port to somewhere else. */
	if (!origin || !same(&now->to.address, &origin->application.address) || now->to.port != origin->application.port)
		return 0;
	return origin;
}

/* Keeps the client with the application's new socket. The application may be slow to accept() it: the relay's end, and
 * its note, may be gone by then. */
static __always_inline int note_client(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct connection now = to_local(ops);
	struct origin *origin = origin_of(&now);
	struct endpoint client;

	if (!origin)
		return ALLOW;
	client = origin->client;
	bpf_sk_storage_get(&served_sockets, sk, &client, BPF_SK_STORAGE_GET_F_CREATE);
	return ALLOW;
}

/* A process of the pod connects from where a relay did that is no more, an agent that was killed: the note is not about
 * this connection. (The relay's own sockets do not come here.) */
static __always_inline void forget_client(struct bpf_sock_ops *ops)
{
	struct connection seen = to_local(ops);
	struct connection now = {};

	/* The other way round: here the local end is the one that connects. */
	now.from.netns_cookie = seen.from.netns_cookie;
	now.from.endpoint = seen.to;
	now.to = seen.from.endpoint;
	if (origin_of(&now))
		bpf_map_delete_elem(&origins, &now.from);
}

SEC("sockops")
int note_flow(struct bpf_sock_ops *ops)
{
	struct socket_key key = {};
	struct bpf_sock *sk = ops->sk; /* read once: the verifier forgets that it is none of NULL */
	struct dialled *dialled;

	if (!sk)
		return ALLOW;
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return note_client(ops, sk);
	/* Runs before the SYN is sent, so the entry is there before the relay can accept(). */
	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return ALLOW;
	forget_client(ops);
	dialled = bpf_sk_storage_get(&dialled_sockets, sk, 0, 0);
	if (!dialled)
		return ALLOW;

	key.netns_cookie = bpf_get_netns_cookie(ops);
	key.endpoint.address = local_address6(ops);
	if (dialled->ipv4) /* also for an AF_INET6 socket that dials a mapped address */
		key.endpoint.address = mapped(WORD(ops->local_ip4));
	key.endpoint.port = bpf_htons((__u16)ops->local_port); /* the one field in host byte order */
	/* A full map loses the entry, and the relay then closes the connection: fail closed. */
	bpf_map_update_elem(&flows, &key, &dialled->destination, BPF_ANY);
	return ALLOW;
}
