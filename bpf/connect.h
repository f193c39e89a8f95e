/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * connect4/6 and their _strict twins: where an application's connect() goes. `route` decides, the rest carries it out.
 */
#pragma once

#include "address.h"
#include "constants.h"
#include "refused.h"

enum route { PLAIN, REDIRECT, REFUSE };

static __always_inline int is_tcp(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_STREAM && (ctx->protocol == TCP || ctx->protocol == MPTCP);
}

/* Whether a peer is there, or a Service that has one. */
static __always_inline int is_known(const struct endpoint *to)
{
	return bpf_map_lookup_elem(&peers, &to->address) || bpf_map_lookup_elem(&frontends, to);
}

static __always_inline int allows(const struct egress_rule *rule, __be16 port)
{
	if (rule->every_port)
		return 1;
#pragma unroll
	for (int i = 0; i < MAX_RULE_PORTS; i++)
		if (i < rule->count && rule->ports[i] == port)
			return 1;
	return 0;
}

/* Whether a pod with strict egress may connect there in clear: outside the cluster, or by a rule. */
static __always_inline int allowed_in_clear(const struct endpoint *to)
{
	struct range single = { .prefix_length = 128, .address = to->address };
	struct egress_rule *rule;

	if (is_loopback(&to->address) || is_unspecified(&to->address))
		return 1;
	rule = bpf_map_lookup_elem(&egress_rules, &single);
	return !rule || allows(rule, to->port);
}

/* Whether there may be a peer that nobody knows, where none is known. */
static __always_inline int is_refused(const struct endpoint *to)
{
	struct range single = { .prefix_length = 128, .address = to->address };
	struct refusal *refusal = bpf_map_lookup_elem(&refused_ranges, &single);
	struct egress_rule *rule;

	if (!refusal || is_loopback(&to->address) || is_unspecified(&to->address))
		return 0;
	if (!refusal->by_rules)
		return 1;
	rule = bpf_map_lookup_elem(&egress_rules, &single);
	return !rule || !allows(rule, to->port);
}

/* Whether it is a peer's relay that is dialled. The pod's own relay does so from another cgroup; what comes here is another
 * mesh's sidecar that has caught the relay's connection and passes it on. To redirect that would be a circle. Whoever else
 * dials the port meets a listener that says nothing before a TLS handshake with a pod's certificate. */
static __always_inline int is_tunnel(const struct endpoint *to)
{
	return to->port == bpf_htons(TUNNEL_PORT) && bpf_map_lookup_elem(&peers, &to->address);
}

/* Whether a listener that was looked up is the pod's relay's own. Releases it. */
static __always_inline int is_relay(struct bpf_sock *listener)
{
	int found = bpf_sk_storage_get(&listeners, listener, 0, 0) != 0;

	bpf_sk_release(listener);
	return found;
}

/* Whether the pod's relay listens at the port. While its agent is away any process of the pod may have taken that, and
 * would be sent what the others dial. The source is loopback, as it will be: strict_inbound is asked, too. */
static __always_inline int has_relay(struct bpf_sock_addr *ctx, __be16 port, int ipv4)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;

	if (ipv4) {
		tuple.ipv4.saddr = LOOPBACK4;
		tuple.ipv4.daddr = LOOPBACK4;
		tuple.ipv4.dport = port;
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv6.saddr[3] = bpf_htonl(1);
		tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = port;
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	return sk ? is_relay(sk) : 0;
}

static __always_inline enum route refuse(struct bpf_sock_addr *ctx, const struct endpoint *to,
					 enum refusal_reason reason)
{
	count_refusal(ctx, to, reason);
	return REFUSE;
}

/* Decides one connect() to `to`; for REDIRECT and REFUSE, `port` is what to dial on loopback instead. */
static __always_inline enum route route(struct bpf_sock_addr *ctx, const struct address *to, __be16 *port,
					int strict)
{
	struct dialled now = {
		.destination = { .address = *to, .port = (__be16)ctx->user_port },
		.ipv4 = is_mapped(to),
	};
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct dialled *kept;
	struct pod *pod;
	int known, refused;

	if (!is_tcp(ctx))
		return PLAIN;

	/* One socket may connect() several times: nothing of an earlier attempt may speak for this one. */
	if (ctx->sk)
		bpf_sk_storage_delete(&dialled_sockets, ctx->sk);

	known = is_known(&now.destination);
	refused = !known && is_refused(&now.destination);
	if (!known && !refused && !strict)
		return PLAIN;
	pod = bpf_map_lookup_elem(&pods, &netns);
	if (pod && (same(to, &pod->own[0]) || same(to, &pod->own[1])))
		return PLAIN;

	*port = NO_PORT;
	if (refused)
		return refuse(ctx, &now.destination, REFUSED_RANGE);
	if (!known && allowed_in_clear(&now.destination))
		return PLAIN;
	if (!known)
		return refuse(ctx, &now.destination, REFUSED_EGRESS);
	/* Held, or a process of the pod that stands in a foreign namespace. */
	if (!pod)
		return refuse(ctx, &now.destination, REFUSED_NAMESPACE);
	if (is_tunnel(&now.destination))
		return PLAIN;
	if (!has_relay(ctx, pod->outbound_port, now.ipv4))
		return refuse(ctx, &now.destination, REFUSED_NAMESPACE);
	if (!ctx->sk)
		return refuse(ctx, &now.destination, REFUSED_SOCKET);
	kept = bpf_sk_storage_get(&dialled_sockets, ctx->sk, &now, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return refuse(ctx, &now.destination, REFUSED_SOCKET);
	*port = pod->outbound_port;
	return REDIRECT;
}

/* From a device that the socket is bound to (SO_BINDTODEVICE) there would be no way to loopback. */
static __always_inline void unbind_from_device(struct bpf_sock_addr *ctx)
{
	char none = 0;

	if (ctx->sk && ctx->sk->bound_dev_if)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, &none, sizeof(none));
}

/* Makes the socket connect to a port on its own loopback. */
static __always_inline void send_to4(struct bpf_sock_addr *ctx, __be16 port)
{
	unbind_from_device(ctx);
	ctx->user_ip4 = LOOPBACK4;
	ctx->user_port = port;
}

static __always_inline void send_to6(struct bpf_sock_addr *ctx, const struct address *to, __be16 port)
{
	struct address loopback = { .words = { 0, 0, 0, bpf_htonl(1) } };

	if (is_mapped(to))
		loopback = mapped(LOOPBACK4);
	unbind_from_device(ctx);
	set_address6(ctx, &loopback);
	ctx->user_port = port;
}

static __always_inline int redirect4(struct bpf_sock_addr *ctx, int strict)
{
	struct address to = mapped(ctx->user_ip4);
	__be16 port = 0;

	if (route(ctx, &to, &port, strict) != PLAIN)
		send_to4(ctx, port);
	return ALLOW;
}

static __always_inline int redirect6(struct bpf_sock_addr *ctx, int strict)
{
	/* JVMs and dual-stack sockets dial IPv4 as ::ffff:a.b.c.d: the same key as connect4's. */
	struct address to = address6(ctx);
	__be16 port = 0;

	if (route(ctx, &to, &port, strict) != PLAIN)
		send_to6(ctx, &to, port);
	return ALLOW;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return redirect4(ctx, 0);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return redirect6(ctx, 0);
}

/* For pods with strict egress, in the place of the two above. That it is another program, and not a flag in a map,
 * keeps it true while there is no agent. */
SEC("cgroup/connect4")
int connect4_strict(struct bpf_sock_addr *ctx)
{
	return redirect4(ctx, 1);
}

SEC("cgroup/connect6")
int connect6_strict(struct bpf_sock_addr *ctx)
{
	return redirect6(ctx, 1);
}
