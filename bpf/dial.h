/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The last look at a redirected connection before it leaves the application's socket. connect() has asked whether the
 * relay listens, with no source port yet, and a SYN that nobody answers is sent again seconds later: by then the agent may
 * be gone and a neighbour in the pod have its port, or one have joined its SO_REUSEPORT group. So each SYN is held against
 * the listener that the kernel would choose for just this connection (net/ipv4/inet_hashtables.c: the same hash).
 *
 * So is what follows, until the relay's end is there: where a listener's queue is full, the kernel answers by a cookie and
 * keeps nothing (net/ipv4/syncookies.c). The application has a connection then, and whoever listens at the port when its
 * bytes come is given it. An end that is there was made by a packet that was looked at.
 */
#pragma once

#include "connect.h"

/* A redirected connection's ends, as its SYN has them; returns how long the tuple is. */
static __always_inline __u32 tuple_of(struct bpf_sock *sk, int ipv4, struct bpf_sock_tuple *tuple)
{
	if (ipv4) {
		tuple->ipv4.saddr = sk->src_ip4;
		tuple->ipv4.daddr = LOOPBACK4;
		tuple->ipv4.sport = bpf_htons((__u16)sk->src_port);
		tuple->ipv4.dport = sk->dst_port;
		return sizeof(tuple->ipv4);
	}
	tuple->ipv6.saddr[0] = sk->src_ip6[0];
	tuple->ipv6.saddr[1] = sk->src_ip6[1];
	tuple->ipv6.saddr[2] = sk->src_ip6[2];
	tuple->ipv6.saddr[3] = sk->src_ip6[3];
	tuple->ipv6.daddr[3] = bpf_htonl(1);
	tuple->ipv6.sport = bpf_htons((__u16)sk->src_port);
	tuple->ipv6.dport = sk->dst_port;
	return sizeof(tuple->ipv6);
}

/* Whether a packet that leaves over loopback may: none of a redirected connection but to the relay. What is dropped is
 * sent again, so a connection that an agent's replacement leaves behind reaches the next one. */
static __always_inline int reaches_relay(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk = skb->sk, *listener;
	struct dialled *dialled;
	__u32 length;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	dialled = bpf_sk_storage_get(&dialled_sockets, sk, 0, 0);
	if (!dialled || dialled->arrived)
		return 1;
	length = tuple_of(sk, dialled->ipv4, &tuple);
	listener = bpf_sk_lookup_tcp(skb, &tuple, length, BPF_F_CURRENT_NETNS, 0);
	if (listener && sk->state != BPF_TCP_SYN_SENT && listener->state != BPF_TCP_LISTEN) {
		bpf_sk_release(listener);
		dialled->arrived = 1;
		return 1;
	}
	if (!listener) {
		/* The last connection between these ports lingers at the relay (TIME_WAIT) and is no whole socket. */
		if (dialled->ipv4)
			tuple.ipv4.sport = 0;
		else
			tuple.ipv6.sport = 0;
		listener = bpf_sk_lookup_tcp(skb, &tuple, length, BPF_F_CURRENT_NETNS, 0);
	}
	return listener ? is_relay(listener) : 1; /* nobody: the kernel answers with a reset */
}
