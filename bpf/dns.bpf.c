/* Leads name queries (port 53, UDP and TCP) of a cgroup to a stand-in resolver, and keeps up the name server's address.
 *
 * The resolver listens on a pool of loopback ports in each network namespace that it serves. The first query to a name
 * server takes a port of the pool for it, for good: by the port on which a query arrives the resolver knows whom it was
 * meant for, and whatever comes from that port is said to come from that name server. What cannot be led (no port left,
 * a socket bound to a device, a namespace without a resolver) goes where it was meant to go.
 */
#include "squall.h"

#define AF_INET 2
#define AF_INET6 10
#define DNS_PORT 53
#define PORTS_MOST 16

enum { LED, CROWDED, BOUND };

/* An address in a network namespace; IPv4 in the first word. */
struct place {
	__u64 netns;
	__u32 address[4];
	__u16 family;
	__u16 port; /* network order */
	__u32 zero;
};

struct pool {
	__u16 ports4[PORTS_MOST]; /* network order, 0: no more */
	__u16 ports6[PORTS_MOST];
};

/* network namespace (cookie) -> the resolver's ports in it */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, struct pool);
} pools SEC(".maps");

/* name server -> the resolver's port that stands for it */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct place);
	__type(value, __u16);
} outward SEC(".maps");

/* the resolver's port -> the name server that it stands for */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct place);
	__type(value, struct place);
} homeward SEC(".maps");

/* The resolver's own address: 127.0.0.1 or ::1. */
static __always_inline void loopback(struct place *place, __u64 netns, __u16 family, __u16 port)
{
	__builtin_memset(place, 0, sizeof(*place));
	place->netns = netns;
	place->family = family;
	place->port = port;
	if (family == AF_INET)
		place->address[0] = bpf_htonl(0x7f000001);
	else
		place->address[3] = bpf_htonl(1);
}

/* The port that stands for this name server, a free one of the pool the first time; 0: none is left. */
static __always_inline __u16 port_for(struct place *server)
{
	__u16 *known = bpf_map_lookup_elem(&outward, server);
	struct pool *pool;
	struct place here;

	if (known)
		return *known;
	pool = bpf_map_lookup_elem(&pools, &server->netns);
	if (!pool)
		return 0;
#pragma unroll
	for (int i = 0; i < PORTS_MOST; i++) {
		__u16 port = server->family == AF_INET ? pool->ports4[i] : pool->ports6[i];

		if (!port)
			break;
		loopback(&here, server->netns, server->family, port);
		/* Whoever comes first has it; two CPUs that ask for one server at once may take two. */
		if (!bpf_map_update_elem(&homeward, &here, server, BPF_NOEXIST)) {
			bpf_map_update_elem(&outward, server, &port, BPF_ANY);
			return port;
		}
	}
	count(CROWDED);
	return 0;
}

static __always_inline bool asks(struct bpf_sock_addr *context)
{
	if (context->user_port != bpf_htons(DNS_PORT) || !lease_holds())
		return false;
	return context->protocol == 17 || context->protocol == 6; /* UDP, TCP */
}

static __always_inline bool bound(struct bpf_sock_addr *context)
{
	struct bpf_sock *socket = context->sk;

	if (!socket || !socket->bound_dev_if)
		return false;
	count(BOUND);
	return true;
}

static __always_inline int lead4(struct bpf_sock_addr *context)
{
	struct place server = {};
	__u16 port;

	if (!asks(context) || bound(context))
		return 1;
	server.netns = bpf_get_netns_cookie(context);
	server.family = AF_INET;
	server.port = bpf_htons(DNS_PORT);
	server.address[0] = context->user_ip4;
	port = port_for(&server);
	if (port) {
		context->user_ip4 = bpf_htonl(0x7f000001);
		context->user_port = port;
		count(LED);
	}
	return 1;
}

/* An IPv4 address that an IPv6 socket writes as ::ffff:a.b.c.d */
static __always_inline bool mapped(struct bpf_sock_addr *context)
{
	return !context->user_ip6[0] && !context->user_ip6[1] && context->user_ip6[2] == bpf_htonl(0xffff);
}

/* fe80::/10 means something on one link only, and which one a program here is not told. */
static __always_inline bool link_local(struct bpf_sock_addr *context)
{
	if ((context->user_ip6[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000))
		return false;
	count(BOUND);
	return true;
}

static __always_inline int lead6(struct bpf_sock_addr *context)
{
	struct place server = {};
	bool four;
	__u16 port;

	if (!asks(context) || bound(context) || link_local(context))
		return 1;
	four = mapped(context);
	server.netns = bpf_get_netns_cookie(context);
	server.family = four ? AF_INET : AF_INET6;
	server.port = bpf_htons(DNS_PORT);
	if (four) {
		server.address[0] = context->user_ip6[3];
	} else {
		server.address[0] = context->user_ip6[0];
		server.address[1] = context->user_ip6[1];
		server.address[2] = context->user_ip6[2];
		server.address[3] = context->user_ip6[3];
	}
	port = port_for(&server);
	if (!port)
		return 1;
	if (four) {
		context->user_ip6[3] = bpf_htonl(0x7f000001);
	} else {
		context->user_ip6[0] = 0;
		context->user_ip6[1] = 0;
		context->user_ip6[2] = 0;
		context->user_ip6[3] = bpf_htonl(1);
	}
	context->user_port = port;
	count(LED);
	return 1;
}

/* What comes from the resolver comes, for the program, from the name server; also when the lease has lapsed. */
static __always_inline int name4(struct bpf_sock_addr *context)
{
	struct place here, *server;

	if (context->user_ip4 != bpf_htonl(0x7f000001))
		return 1;
	loopback(&here, bpf_get_netns_cookie(context), AF_INET, context->user_port);
	server = bpf_map_lookup_elem(&homeward, &here);
	if (server) {
		context->user_ip4 = server->address[0];
		context->user_port = server->port;
	}
	return 1;
}

static __always_inline int name6(struct bpf_sock_addr *context)
{
	struct place here, *server;
	bool four = mapped(context) && context->user_ip6[3] == bpf_htonl(0x7f000001);
	bool six = !context->user_ip6[0] && !context->user_ip6[1] && !context->user_ip6[2] &&
		   context->user_ip6[3] == bpf_htonl(1);

	if (!four && !six)
		return 1;
	loopback(&here, bpf_get_netns_cookie(context), four ? AF_INET : AF_INET6, context->user_port);
	server = bpf_map_lookup_elem(&homeward, &here);
	if (!server)
		return 1;
	if (four) {
		context->user_ip6[3] = server->address[0];
	} else {
		context->user_ip6[0] = server->address[0];
		context->user_ip6[1] = server->address[1];
		context->user_ip6[2] = server->address[2];
		context->user_ip6[3] = server->address[3];
	}
	context->user_port = server->port;
	return 1;
}

SEC("cgroup/connect4")
int dns_connect4(struct bpf_sock_addr *context)
{
	return lead4(context);
}

SEC("cgroup/connect6")
int dns_connect6(struct bpf_sock_addr *context)
{
	return lead6(context);
}

SEC("cgroup/sendmsg4")
int dns_sendmsg4(struct bpf_sock_addr *context)
{
	return lead4(context);
}

SEC("cgroup/sendmsg6")
int dns_sendmsg6(struct bpf_sock_addr *context)
{
	return lead6(context);
}

SEC("cgroup/recvmsg4")
int dns_recvmsg4(struct bpf_sock_addr *context)
{
	return name4(context);
}

SEC("cgroup/recvmsg6")
int dns_recvmsg6(struct bpf_sock_addr *context)
{
	return name6(context);
}

SEC("cgroup/getpeername4")
int dns_getpeername4(struct bpf_sock_addr *context)
{
	return name4(context);
}

SEC("cgroup/getpeername6")
int dns_getpeername6(struct bpf_sock_addr *context)
{
	return name6(context);
}
