/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * hold4/6, attached to the cgroup that kubelet keeps all pods in: a pod that nobody has decided on reaches no peer. A pod's
 * own programs run before those above it (kernel/bpf/cgroup.c: compute_effective_progs), and what they have redirected is
 * no peer any more.
 */
#pragma once

#include "connect.h"

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
