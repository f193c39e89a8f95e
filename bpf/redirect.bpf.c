/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The programs of an enrolled pod, attached to the pod's cgroup. In the order a connection meets them:
 *
 *   connect4/6      the application calls connect(): a peer's address, or that of a Service with a peer among its
 *                   endpoints, is replaced by the outbound listener's; the _strict ones refuse what would leave in
 *                   clear to somewhere inside the cluster
 *   sockops         the kernel has chosen the source port: note for the relay where the application was going; or the
 *                   inbound relay's connection has arrived at an application: note for it whose that is
 *   getsockname4/6  the application asks for its own address: the pod's, not loopback
 *   getpeername4/6  either application asks for the other's address: the one it dialled, or the client's own
 *                   (the kernel runs the same hook for accept(), net/ipv4/af_inet.c: inet_getname)
 *
 *   guard_egress    what the pod's processes send to peers outside the tunnel is counted (guard.h)
 *
 *   strict_inbound  in the pod's network namespace, for a connection from outside that meets no tunnel
 *
 *   hold4/6         above all pods: refuses a pod's connections to peers until the agent has decided on the pod, so
 *                   that one that is annotated from the start never sends in clear, also while there is no agent
 *
 * The agent's own sockets belong to the agent's cgroup: they come to hold, like those of any pod that is not annotated,
 * and to nothing else.
 */
#include "maps.h"

#define AF_INET_MAPPED bpf_htonl(0x0000ffff) /* third word of ::ffff:a.b.c.d */
#define LOOPBACK4 bpf_htonl(0x7f000001)
#define AF_INET 2
#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define TCP 6
#define UDP 17
#define MPTCP 262

#define TUNNEL_PORT 18443

/* Nobody can listen there, so the kernel answers ECONNREFUSED, which applications retry, where DENY would say EPERM. */
#define NO_PORT 0

#define ALLOW 1

/* One 32-bit access to a context field, as the verifier wants it: clang would merge neighbours into 64-bit
 * ones or compute the field's offset. */
#define WORD(field) (*(volatile __u32 *)&(field))

static __always_inline struct address mapped(__be32 ipv4)
{
	return (struct address){ .words = { 0, 0, AF_INET_MAPPED, ipv4 } };
}

static __always_inline int is_mapped(const struct address *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == AF_INET_MAPPED;
}

static __always_inline int is_loopback(const struct address *a)
{
	if (is_mapped(a))
		return (a->words[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == 0 && a->words[3] == bpf_htonl(1);
}

static __always_inline int is_unspecified(const struct address *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[3] == 0 &&
	       (a->words[2] == 0 || a->words[2] == AF_INET_MAPPED);
}

static __always_inline int same(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

static __always_inline struct address address6(const struct bpf_sock_addr *ctx)
{
	return (struct address){
		.words = { WORD(ctx->user_ip6[0]), WORD(ctx->user_ip6[1]), WORD(ctx->user_ip6[2]),
			   WORD(ctx->user_ip6[3]) }
	};
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct address *a)
{
	WORD(ctx->user_ip6[0]) = a->words[0];
	WORD(ctx->user_ip6[1]) = a->words[1];
	WORD(ctx->user_ip6[2]) = a->words[2];
	WORD(ctx->user_ip6[3]) = a->words[3];
}

/* ---- whose process this is ----------------------------------------------------------------------------- */

/* Deeper than any pod's cgroup lies: kind in Docker nests kubelet's tree below three more levels. */
#define MAX_CGROUP_LEVEL 16

/* The cgroup of the pod that the process belongs to, if the agent knows that; else 0. */
static __always_inline __u64 decided_pod(void)
{
	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		__u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);

		if (!cgroup)
			return 0;
		if (bpf_map_lookup_elem(&decided, &cgroup))
			return cgroup;
	}
	return 0;
}

/* Counts one by pod and reason: `now` is the last. Two at a time may both be the first, and one of them be forgotten: the
 * number is for people. Where there is no memory for another entry, only the number says that there was one more. */
static __always_inline void add_refusal(const struct refusal_key *key, struct refusals *now)
{
	struct refusals *before = bpf_map_lookup_elem(&kernel_refusals, key);

	if (before)
		now->count += before->count;
	if (bpf_map_update_elem(&kernel_refusals, key, now, BPF_ANY) && before)
		__sync_fetch_and_add(&before->count, 1);
}

/* Counts a refused connect(), by pod and reason. Pods that nobody has decided on have one count together: a process may
 * make itself as many cgroups as it likes. */
static __noinline void count_refusal(struct bpf_sock_addr *ctx, const struct endpoint *to, __u32 reason)
{
	struct refusal_key key = { .cgroup = decided_pod(), .reason = reason };
	struct refusals now = {
		.count = 1,
		.netns_cookie = bpf_get_netns_cookie(ctx),
		.at = bpf_ktime_get_boot_ns(),
		.destination = *to,
		.process = bpf_get_current_pid_tgid() >> 32,
	};

	add_refusal(&key, &now);
}

/* ---- connect ---------------------------------------------------------------------------------------- */

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

/* ---- hold ------------------------------------------------------------------------------------------- */

/* Attached to the cgroup that kubelet keeps all pods in. A pod's own programs run before those above it
 * (kernel/bpf/cgroup.c: compute_effective_progs), and what they have redirected is no peer any more. */

static __always_inline int is_held(struct bpf_sock_addr *ctx, const struct address *to)
{
	struct endpoint destination = { .address = *to, .port = (__be16)ctx->user_port };

	if (!is_tcp(ctx) || !(is_known(&destination) || is_refused(&destination)) || decided_pod())
		return 0;
	count_refusal(ctx, &destination, REFUSED_UNDECIDED);
	return 1;
}

SEC("cgroup/connect4")
int hold4(struct bpf_sock_addr *ctx)
{
	struct address to = mapped(ctx->user_ip4);

	if (is_held(ctx, &to))
		send_to4(ctx, NO_PORT);
	return ALLOW;
}

SEC("cgroup/connect6")
int hold6(struct bpf_sock_addr *ctx)
{
	struct address to = address6(ctx);

	if (is_held(ctx, &to))
		send_to6(ctx, &to, NO_PORT);
	return ALLOW;
}

/* ---- sockops ---------------------------------------------------------------------------------------- */

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

/* ---- getpeername, accept ---------------------------------------------------------------------------- */

/* Fills `seen` with the peer that the application should see, or returns 0: the real one is right. */
static __always_inline int visible_peer(struct bpf_sock_addr *ctx, struct endpoint *seen)
{
	struct dialled *dialled;
	struct endpoint *client;

	if (!ctx->sk)
		return 0;
	dialled = bpf_sk_storage_get(&dialled_sockets, ctx->sk, 0, 0);
	if (dialled) {
		*seen = dialled->destination;
		return 1;
	}
	client = bpf_sk_storage_get(&served_sockets, ctx->sk, 0, 0);
	if (!client)
		return 0;
	*seen = *client;
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint seen;

	if (visible_peer(ctx, &seen)) {
		ctx->user_ip4 = seen.address.words[3];
		ctx->user_port = seen.port;
	}
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint seen;

	if (visible_peer(ctx, &seen)) {
		set_address6(ctx, &seen.address);
		ctx->user_port = seen.port;
	}
	return ALLOW;
}

/* ---- getsockname ------------------------------------------------------------------------------------ */

/* The pod's own address for a redirected socket whose real one is loopback, else NULL. */
static __always_inline const struct address *visible_self(struct bpf_sock_addr *ctx, const struct address *real)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct dialled *dialled;
	struct pod *pod;

	if (!ctx->sk || !is_loopback(real))
		return 0;
	dialled = bpf_sk_storage_get(&dialled_sockets, ctx->sk, 0, 0);
	if (!dialled)
		return 0;
	pod = bpf_map_lookup_elem(&pods, &netns);
	if (!pod)
		return 0;
	return dialled->ipv4 ? &pod->own[0] : &pod->own[1];
}

SEC("cgroup/getsockname4")
int getsockname4(struct bpf_sock_addr *ctx)
{
	struct address real = mapped(ctx->user_ip4);
	const struct address *own = visible_self(ctx, &real);

	if (own)
		ctx->user_ip4 = own->words[3];
	return ALLOW;
}

SEC("cgroup/getsockname6")
int getsockname6(struct bpf_sock_addr *ctx)
{
	struct address real = address6(ctx);
	const struct address *own = visible_self(ctx, &real);

	if (own)
		set_address6(ctx, own);
	return ALLOW;
}

/* ---- strict inbound --------------------------------------------------------------------------------- */

/* The kernel looks for a listener, for a SYN to this namespace. Refusing makes it answer RST, as for a closed port
 * (net/ipv4/inet_hashtables.c: __inet_lookup_listener). A source address that is ours or loopback is the pod itself, or
 * the inbound relay: the kernel drops such packets when they come from elsewhere. */
SEC("sk_lookup")
int strict_inbound(struct bpf_sk_lookup *ctx)
{
	struct address remote, local;

	if (ctx->protocol != TCP || ctx->local_port == TUNNEL_PORT)
		return SK_PASS;
	if (ctx->family == AF_INET) {
		remote = mapped(ctx->remote_ip4);
		local = mapped(ctx->local_ip4);
	} else {
		remote = (struct address){ .words = { WORD(ctx->remote_ip6[0]), WORD(ctx->remote_ip6[1]),
						      WORD(ctx->remote_ip6[2]), WORD(ctx->remote_ip6[3]) } };
		local = (struct address){ .words = { WORD(ctx->local_ip6[0]), WORD(ctx->local_ip6[1]),
						     WORD(ctx->local_ip6[2]), WORD(ctx->local_ip6[3]) } };
	}
	if (is_loopback(&remote) || same(&remote, &local) || bpf_map_lookup_elem(&node_addresses, &remote))
		return SK_PASS;
	return SK_DROP;
}

#include "dial.h"
#include "guard.h"

/* The helpers used here are offered to GPL-compatible programs only (include/linux/license.h). */
char _license[] SEC("license") = "GPL";
