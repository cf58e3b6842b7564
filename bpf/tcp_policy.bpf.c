/* Holds the data of established TCP connections by a policy: (address, port) -> nanoseconds.
 *
 * At an interface's egress. The header is read where it stands; nothing is copied. What is held gets a departure time
 * where the interface's queue knows such (fq), or is led to a delay line's device. Handshakes, bare acknowledgements,
 * FIN and RST without data pass.
 */
#include "squall.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

/* As in network.bpf.c: a packet that a delay line has put back says whose it was and on which way. */
#define MARK_KIND 0x5c000000
#define MARK_KIND_BITS 0xff000000
#define MARK_INGRESS 0x00800000
#define MARK_ORDER 0x007fffff
#define CGROUP_LEVELS 32

enum { HELD, UNHELD, UNREACHED };
enum { ALL, ONE_CGROUP, SOME_SOCKETS };
enum { BY_LINE, BY_DEPARTURE_TIME };

struct settings {
	__u32 scope;
	__u32 how;
	__u64 cgroup;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* IPv4 addresses stand as ::ffff:a.b.c.d; an address or port of zero stands for any. */
struct end {
	__be32 address[4];
	__be16 port;
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct end);
	__type(value, __u64);
} policy SEC(".maps");

/* Each interface where the program is attached; as in network.bpf.c. */
struct place {
	__u32 ifindex;
	__u32 way;
};

struct hook {
	__u32 order;
	__u32 line; /* the device that a delay line listens on */
	__u32 header;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct hook);
} hooks SEC(".maps");

/* The process's sockets; what a listening one accepts is tagged like it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} tags SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} processes SEC(".maps");

/* Their sockets that speak multipath TCP are known by port and addresses, as in network.bpf.c, which says why. */
#define MULTIPATH_PORTS 3

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (MULTIPATH_PORTS + 1) * 1024);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct connection {
	__be32 local[4];
	__be32 remote[4];
	__u16 local_port;
	__u16 remote_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct connection);
	__type(value, __u32);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} multipath SEC(".maps");

/* The handshake is done; a connection that is being closed may still have data to send. */
static __always_inline bool established(const struct bpf_sock *sk)
{
	switch (sk->state) {
	case BPF_TCP_ESTABLISHED:
	case BPF_TCP_CLOSE_WAIT:
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_LAST_ACK:
	case BPF_TCP_CLOSING:
		return true;
	}
	return false;
}

static __always_inline bool below(struct __sk_buff *skb, __u64 cgroup)
{
	for (int level = 1; level < CGROUP_LEVELS; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id || id == cgroup)
			return id;
	}
	return false;
}

static __always_inline bool mapped(const struct end *one)
{
	return !one->address[0] && !one->address[1] && one->address[2] == bpf_htonl(0xffff);
}

static __always_inline bool of_multipath(const struct end *local, const struct end *remote)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&multipath, &zero), word;
	struct connection one = {.local_port = bpf_ntohs(local->port), .remote_port = bpf_ntohs(remote->port)};
	__u64 *bits;

	if (!any || !*any)
		return false;
	word = MULTIPATH_PORTS * 1024 + (one.local_port >> 6);
	bits = bpf_map_lookup_elem(&ports, &word);
	if (bits && *bits >> (one.local_port & 63) & 1)
		return true;
	if (mapped(local)) {
		one.local[0] = local->address[3];
		one.remote[0] = remote->address[3];
	} else {
		__builtin_memcpy(one.local, local->address, sizeof(one.local));
		__builtin_memcpy(one.remote, remote->address, sizeof(one.remote));
	}
	return bpf_map_lookup_elem(&connections, &one);
}

/* A socket that was seen to be in the cgroup is tagged: its packets may lose it on their way (see found_as_theirs). */
static __always_inline bool theirs(struct __sk_buff *skb, struct bpf_sock *sk, const struct settings *set,
				   const struct end *local, const struct end *remote)
{
	if (set->scope == ALL || bpf_sk_storage_get(&tags, sk, NULL, 0) || of_multipath(local, remote))
		return true;
	if (set->scope == ONE_CGROUP && below(skb, set->cgroup)) {
		bpf_sk_storage_get(&tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		return true;
	}
	return false;
}

/* Reads both ends of a packet that carries data; false for any other. */
static __always_inline bool data(struct __sk_buff *skb, struct end *local, struct end *remote)
{
	struct tcphdr tcp;
	__u32 at, length;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET) || ip.protocol != IPPROTO_TCP)
			return false;
		at = ip.ihl * 4;
		length = skb->gso_size ? 0xffff : bpf_ntohs(ip.tot_len);
		local->address[2] = remote->address[2] = bpf_htonl(0xffff);
		local->address[3] = ip.saddr;
		remote->address[3] = ip.daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET) || ip.nexthdr != IPPROTO_TCP)
			return false;
		at = sizeof(ip);
		length = skb->gso_size ? 0xffff : at + bpf_ntohs(ip.payload_len);
		__builtin_memcpy(local->address, &ip.saddr, 16);
		__builtin_memcpy(remote->address, &ip.daddr, 16);
	} else {
		return false;
	}
	if (bpf_skb_load_bytes_relative(skb, at, &tcp, sizeof(tcp), BPF_HDR_START_NET) || tcp.syn)
		return false;
	local->port = tcp.source;
	remote->port = tcp.dest;
	return length > at + tcp.doff * 4;
}

static __always_inline __u64 *entry(const struct end *one, bool address, bool port)
{
	struct end key = {};

	if (address)
		__builtin_memcpy(key.address, one->address, sizeof(key.address));
	else
		key.address[2] = mapped(one) ? one->address[2] : 0;
	if (port)
		key.port = one->port;
	return bpf_map_lookup_elem(&policy, &key);
}

/* The most exact entry; of two that are equally exact, the one about the other end. */
static __always_inline __u64 wanted(const struct end *local, const struct end *remote)
{
	__u64 *ns;

	if ((ns = entry(remote, true, true)) || (ns = entry(local, true, true)) || (ns = entry(remote, true, false)) ||
	    (ns = entry(local, true, false)) || (ns = entry(remote, false, true)) || (ns = entry(local, false, true)) ||
	    (ns = entry(remote, false, false)))
		return *ns;
	return 0;
}

/* A packet that comes from another's delay line has lost its socket on the way: it is looked up, from the other side. */
static __noinline bool found_as_theirs(struct __sk_buff *skb, struct end *local, struct end *remote, struct settings *set)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;
	bool yes;

	if (!local || !remote || !set)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.saddr = remote->address[3];
		tuple.ipv4.daddr = local->address[3];
		tuple.ipv4.sport = remote->port;
		tuple.ipv4.dport = local->port;
	} else {
		size = sizeof(tuple.ipv6);
		__builtin_memcpy(tuple.ipv6.saddr, remote->address, 16);
		__builtin_memcpy(tuple.ipv6.daddr, local->address, 16);
		tuple.ipv6.sport = remote->port;
		tuple.ipv6.dport = local->port;
	}
	sk = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	yes = established(sk) && (set->scope == ALL || bpf_sk_storage_get(&tags, sk, NULL, 0) || of_multipath(local, remote));
	bpf_sk_release(sk);
	return yes;
}

static __always_inline bool meant(struct __sk_buff *skb, struct end *local, struct end *remote, struct settings *set)
{
	bool came_back = (skb->mark & MARK_KIND_BITS) == MARK_KIND;
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return came_back && data(skb, local, remote) && found_as_theirs(skb, local, remote, set);
	sk = bpf_sk_fullsock(sk);
	return sk && sk->protocol == IPPROTO_TCP && established(sk) && data(skb, local, remote) &&
	       theirs(skb, sk, set, local, remote);
}

static __always_inline bool has_been_here(struct __sk_buff *skb, const struct settings *set, const struct hook *hook)
{
	if ((skb->mark & MARK_KIND_BITS) != MARK_KIND)
		return false;
	return skb->mark & MARK_INGRESS || (set->how == BY_LINE && (skb->mark & MARK_ORDER) >= hook->order);
}

SEC("tc")
int egress(struct __sk_buff *skb)
{
	struct place here = {.ifindex = skb->ifindex};
	struct end local = {}, remote = {};
	struct settings *set;
	struct hook *hook;
	__u32 zero = 0;
	__u64 ns;

	set = bpf_map_lookup_elem(&settings, &zero);
	hook = bpf_map_lookup_elem(&hooks, &here);
	if (!set || !hook || has_been_here(skb, set, hook) || !meant(skb, &local, &remote, set) || !lease_holds())
		return TC_ACT_UNSPEC;
	ns = wanted(&local, &remote);
	if (!ns) {
		count(UNHELD);
		return TC_ACT_UNSPEC;
	}
	if (set->how == BY_LINE) {
		count(hook->line ? HELD : UNREACHED);
		return hook->line ? bpf_redirect(hook->line, 0) : TC_ACT_UNSPEC;
	}
	/* A departure time is lost on the way through a delay line: what comes back from one gets it here, behind it. */
	count(HELD);
	skb->tstamp = bpf_ktime_get_ns() + ns;
	return TC_ACT_UNSPEC;
}

/* ---- new sockets of the process: noted when it makes them */
SEC("cgroup/sock_create")
int note(struct bpf_sock *sk)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32, any = 0;

	if (lease_holds() && (bpf_map_lookup_elem(&processes, &process) || bpf_map_lookup_elem(&processes, &any)))
		bpf_sk_storage_get(&tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}
