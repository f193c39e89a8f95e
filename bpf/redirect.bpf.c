/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The programs of an enrolled pod, attached to the pod's cgroup. In the order a connection meets them:
 *
 *   connect4/6      the application calls connect(): a peer's address, or that of a Service with a peer among its
 *   (connect.h)     endpoints, is replaced by the outbound listener's; the _strict ones refuse what would leave in
 *                   clear to somewhere inside the cluster
 *   note_flow       the kernel has chosen the source port: note for the relay where the application was going; or the
 *   (sockops.h)     inbound relay's connection has arrived at an application: note for it whose that is
 *   getsockname4/6  the application asks for its own address: the pod's, not loopback
 *   getpeername4/6  either application asks for the other's address: the one it dialled, or the client's own
 *   (names.h)       (the kernel runs the same hook for accept(), net/ipv4/af_inet.c: inet_getname)
 *   guard_egress    what the pod's processes send to peers outside the tunnel is counted; a redirected connection's SYN
 *   (guard.h)       reaches the relay or nobody (dial.h)
 *
 *   strict_inbound  in the pod's network namespace, for a connection from outside that meets no tunnel
 *
 *   hold4/6         above all pods: refuses a pod's connections to peers until the agent has decided on the pod, so
 *   (hold.h)        that one that is annotated from the start never sends in clear, also while there is no agent
 *
 * The agent's own sockets belong to the agent's cgroup: they come to hold, like those of any pod that is not annotated,
 * and to nothing else.
 */
#include "maps.h"

#include "connect.h"
#include "dial.h"
#include "guard.h"
#include "hold.h"
#include "names.h"
#include "sockops.h"

/* Strict inbound: the kernel looks for a listener, for a SYN to this namespace. Refusing makes it answer RST, as for a closed port
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

/* The helpers used here are offered to GPL-compatible programs only (include/linux/license.h). */
char _license[] SEC("license") = "GPL";
