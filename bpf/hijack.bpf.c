/* Connections of a service led into Squall's proxy: those that it makes (connect4, connect6, of its cgroup) and those that
 * it is offered (sk_lookup, of its network namespace). The client still sees the peer that it asked for.
 *
 * An address is 128 bits, IPv4 as ::ffff:a.b.c.d; a port is in the machine's order. The user-space side of these
 * structures is src/squall/proxy/hijack.py.
 */
#include "squall.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

#define SPANS 64
#define EVERY_PEER 1
#define CLOSED 2

/* counters */
#define LED 0
#define LEFT 1
#define AWAY 2
#define REFUSED 3
#define FOREIGN 4

struct place {
	__u32 address[4];
	__u16 port;
	__u16 family; /* 0 where it is a key */
};

struct span {
	__u16 low, high;
};

struct settings {
	struct place proxy4, proxy6;   /* where the proxy listens; port 0: it does not */
	struct place refuse4, refuse6; /* bound, but nobody listens: a connection is refused by the kernel itself */
	__u64 netns;                   /* the cookie of the proxy's network namespace; 0: not known */
	__u32 flags;
	__u32 spans;
	struct span span[SPANS]; /* the other ends' ports that are meant, of outbound connections */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* The peers that are meant: the other ends' addresses, a server's outbound, a client's inbound. */
struct prefix {
	__u32 length;
	__u32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} peers SEC(".maps");

/* Where a socket was meant to go, for as long as it lives. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct place);
} meant SEC(".maps");

/* The same by where the connection comes from: what the proxy sees when it accepts, and takes out then. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct place);
	__type(value, struct place);
} origins SEC(".maps");

/* Where the service listens: 1 is the service's own, 0 another's more precise address on the same port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, __u32);
} doors SEC(".maps");

/* Where the proxy's own connections to the service come from, while they are being made. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct place);
	__type(value, __u32);
} own SEC(".maps");

/* The proxy's listening sockets: 0 for IPv4, 1 for IPv6. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

static __always_inline void ipv4(struct place *place, __u32 address)
{
	place->address[2] = bpf_htonl(0xffff);
	place->address[3] = address;
}

static __always_inline bool is_ipv4(const struct place *place)
{
	return !place->address[0] && !place->address[1] && place->address[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_link_local(const struct place *place)
{
	return (place->address[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool peer_is_meant(const struct settings *now, const struct place *peer)
{
	struct prefix whole = {.length = 128};

	if (now->flags & EVERY_PEER)
		return true;
	__builtin_memcpy(whole.address, peer->address, sizeof(whole.address));
	return bpf_map_lookup_elem(&peers, &whole) != NULL;
}

/* No span at all means every port. */
static __always_inline bool port_is_meant(const struct settings *now, __u16 port)
{
	__u32 i;

	if (!now->spans)
		return true;
	for (i = 0; i < SPANS && i < now->spans; i++)
		if (now->span[i].low <= port && port <= now->span[i].high)
			return true;
	return false;
}

/* ---- outbound: what the sockets of a cgroup connect to */

static __always_inline const struct settings *wanted(struct bpf_sock_addr *ctx, const struct place *to)
{
	__u32 zero = 0;
	const struct settings *now = bpf_map_lookup_elem(&settings, &zero);
	struct bpf_sock *sk = ctx->sk;

	if (!now || ctx->protocol != IPPROTO_TCP || !lease_holds())
		return NULL;
	if (!port_is_meant(now, to->port) || !peer_is_meant(now, to)) {
		count(LEFT);
		return NULL;
	}
	/* A loopback address of this namespace cannot be reached from another one, nor through a named interface; a
	 * link-local address needs its interface, which is not known here. */
	if ((now->netns && bpf_get_netns_cookie(ctx) != now->netns) || (sk && sk->bound_dev_if) || is_link_local(to)) {
		count(AWAY);
		return NULL;
	}
	return now;
}

/* The place to go to instead, NULL for where it wants to. */
static __always_inline const struct place *instead(struct bpf_sock_addr *ctx, const struct place *to)
{
	const struct settings *now = wanted(ctx, to);
	const struct place *there;
	struct bpf_sock *sk;
	struct place *note;
	bool four;

	if (!now)
		return NULL;
	four = is_ipv4(to);
	there = now->flags & CLOSED ? (four ? &now->refuse4 : &now->refuse6) : (four ? &now->proxy4 : &now->proxy6);
	if (!there->port) {
		count(AWAY);
		return NULL;
	}
	if (now->flags & CLOSED) {
		count(REFUSED);
		return there;
	}
	sk = ctx->sk;
	if (!sk)
		return NULL;
	note = bpf_sk_storage_get(&meant, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!note) {
		count(AWAY);
		return NULL;
	}
	*note = *to;
	count(LED);
	return there;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct place to = {.family = AF_INET};
	const struct place *there;

	ipv4(&to, ctx->user_ip4);
	to.port = bpf_ntohs((__u16)ctx->user_port);
	there = instead(ctx, &to);
	if (there) {
		ctx->user_ip4 = there->address[3];
		ctx->user_port = bpf_htons(there->port);
	}
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct place to = {.family = AF_INET6};
	const struct place *there;

	to.address[0] = ctx->user_ip6[0];
	to.address[1] = ctx->user_ip6[1];
	to.address[2] = ctx->user_ip6[2];
	to.address[3] = ctx->user_ip6[3];
	to.port = bpf_ntohs((__u16)ctx->user_port);
	there = instead(ctx, &to);
	if (there) {
		ctx->user_ip6[0] = there->address[0];
		ctx->user_ip6[1] = there->address[1];
		ctx->user_ip6[2] = there->address[2];
		ctx->user_ip6[3] = there->address[3];
		ctx->user_port = bpf_htons(there->port);
	}
	return 1;
}

/* Called with the socket's own address and port settled, before the first packet leaves. */
SEC("sockops")
int connecting(struct bpf_sock_ops *ctx)
{
	struct place from = {}, *note;
	struct bpf_sock *sk;
	__u32 zero = 0;
	const struct settings *now;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	sk = ctx->sk;
	now = bpf_map_lookup_elem(&settings, &zero);
	if (!sk || !now)
		return 1;
	note = bpf_sk_storage_get(&meant, sk, 0, 0);
	if (!note)
		return 1;
	/* An IPv6 socket that goes to an IPv4 address has its IPv4 addresses where IPv4 sockets have theirs. */
	if (is_ipv4(note)) {
		ipv4(&from, ctx->local_ip4);
	} else {
		from.address[0] = ctx->local_ip6[0];
		from.address[1] = ctx->local_ip6[1];
		from.address[2] = ctx->local_ip6[2];
		from.address[3] = ctx->local_ip6[3];
	}
	from.port = ctx->local_port;
	bpf_map_update_elem(&origins, &from, note, BPF_ANY);
	return 1;
}

/* A socket may have been led once and go its own way with its next connect: only the proxy's address is replaced. */
SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	const struct settings *now = bpf_map_lookup_elem(&settings, &zero);
	struct bpf_sock *sk = ctx->sk;
	struct place *note;

	if (!now || !sk || ctx->user_ip4 != now->proxy4.address[3] ||
	    bpf_ntohs((__u16)ctx->user_port) != now->proxy4.port)
		return 1;
	note = bpf_sk_storage_get(&meant, sk, 0, 0);
	if (note) {
		ctx->user_ip4 = note->address[3];
		ctx->user_port = bpf_htons(note->port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	const struct settings *now = bpf_map_lookup_elem(&settings, &zero);
	struct bpf_sock *sk = ctx->sk;
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	struct place *note;

	if (!now || !sk || !port || (port != now->proxy4.port && port != now->proxy6.port))
		return 1;
	note = bpf_sk_storage_get(&meant, sk, 0, 0);
	if (!note)
		return 1;
	if (ctx->user_ip6[3] != (is_ipv4(note) ? now->proxy4.address[3] : now->proxy6.address[3]))
		return 1;
	ctx->user_ip6[0] = note->address[0];
	ctx->user_ip6[1] = note->address[1];
	ctx->user_ip6[2] = note->address[2];
	ctx->user_ip6[3] = note->address[3];
	ctx->user_port = bpf_htons(note->port);
	return 1;
}

/* ---- inbound: which listening socket a new connection of a network namespace comes to */

static __always_inline bool is_door(struct place *to)
{
	__u32 *door = bpf_map_lookup_elem(&doors, to);

	if (door)
		return *door;
	if (is_ipv4(to))
		to->address[3] = 0;
	else
		__builtin_memset(to->address, 0, sizeof(to->address));
	door = bpf_map_lookup_elem(&doors, to);
	return door && *door;
}

SEC("sk_lookup")
int offered(struct bpf_sk_lookup *ctx)
{
	struct place to = {}, from = {};
	__u32 which = ctx->family == AF_INET ? 0 : 1, zero = 0, to4, from4;
	const struct settings *now;
	struct bpf_sock *listener;

	if (ctx->protocol != IPPROTO_TCP || !lease_holds())
		return SK_PASS;
	/* Read whole, whatever the family (what is not there is 0): the verifier refuses a pointer into `ctx`. */
	to4 = ctx->local_ip4;
	from4 = ctx->remote_ip4;
	barrier_var(to4);
	barrier_var(from4);
	to.address[0] = ctx->local_ip6[0];
	to.address[1] = ctx->local_ip6[1];
	to.address[2] = ctx->local_ip6[2];
	to.address[3] = ctx->local_ip6[3];
	from.address[0] = ctx->remote_ip6[0];
	from.address[1] = ctx->remote_ip6[1];
	from.address[2] = ctx->remote_ip6[2];
	from.address[3] = ctx->remote_ip6[3];
	if (which == 0) {
		ipv4(&to, to4);
		ipv4(&from, from4);
	}
	to.port = ctx->local_port;
	from.port = bpf_ntohs((__u16)ctx->remote_port);
	if (!is_door(&to) || bpf_map_lookup_elem(&own, &from))
		return SK_PASS;
	now = bpf_map_lookup_elem(&settings, &zero);
	if (!now)
		return SK_PASS;
	if (!peer_is_meant(now, &from)) {
		count(LEFT);
		return SK_PASS;
	}
	if (now->flags & CLOSED) {
		count(REFUSED);
		return SK_DROP;
	}
	listener = bpf_map_lookup_elem(&listeners, &which);
	if (!listener) {
		count(AWAY);
		return SK_PASS;
	}
	/* Refused when a program before this one has chosen already: its choice stands. */
	count(bpf_sk_assign(ctx, listener, 0) ? FOREIGN : LED);
	bpf_sk_release(listener);
	return SK_PASS;
}
