/* Which packets of an interface are meant, and what becomes of them: dropped, broken, doubled, led to a delay line, or put
 * into a class of the interface's queue.
 *
 * `egress` and `ingress` stand at the two ways of each interface of a network namespace. What passes, passes on to whatever
 * other programs there are (-1: TCX_NEXT, TC_ACT_UNSPEC). A packet is read where it stands, by offsets from its network
 * header, so that devices without Ethernet headers are the same; a tagged one is decided about at its VLAN's interface.
 */
#include "squall.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define VLAN_ID 0x0fff
#define IP_MORE 0x2000
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define EXTENSIONS_MOST 6
#define CGROUP_LEVELS 32
#define LOOPBACK_INDEX 1

enum { EGRESS, INGRESS };
enum { DROP, CORRUPT, DUPLICATE, DIVERT, CLASSIFY };
enum { EVERYTHING, ONE_CGROUP, SOME_SOCKETS };
enum { PORTS, LOCAL_PORTS, REMOTE_PORTS, MULTIPATH_PORTS, PORT_KINDS };
enum { ASKS_PEERS = 8, ASKS_A_TO_B = 16, ASKS_B_TO_A = 32 }; /* after 1 << PORTS and so on */
enum { PEER = 1, ZONE_A = 2, ZONE_B = 4 };
enum { MISSED, DROPPED, CORRUPTED, DUPLICATED, DIVERTED, CLASSIFIED, FAILED, SEEN };

/* ---- what user space says */

struct settings {
	__u32 verdict;
	__u32 share; /* of those that match; 0xffffffff: all */
	__u32 correlation;
	__u32 ways; /* 1 << EGRESS, 1 << INGRESS */
	__u32 protocol; /* 0: any; IPPROTO_ICMP is ICMPv6 too */
	__u32 asks;
	__u32 scope;
	__u32 cgroup_level; /* 0: not known */
	__u64 cgroup;
	__u32 class;
	__u32 counts_all; /* SEEN is counted as well */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Each place where a program is attached, with its number among those of the same interface and way. */
struct place {
	__u32 ifindex;
	__u32 way;
};

struct hook {
	__u32 order; /* 1 to 0x7fffff */
	__u32 line; /* the device that a delay line listens on */
	__u32 header; /* the bytes before the network header */
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct hook);
} hooks SEC(".maps");

/* A bit for each port, for each kind of asking. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORT_KINDS * 1024);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct network4 {
	__u32 length;
	__be32 address;
};

struct network6 {
	__u32 length;
	__be32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network4);
	__type(value, __u32);
} networks4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network6);
	__type(value, __u32);
} networks6 SEC(".maps");

/* Their sockets; what a listening one accepts is tagged like it. */
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

/* Their sockets that speak multipath TCP (Go's listeners do, from Go 1.24 on, and it falls back to TCP where the other end
 * does not). The kernel sends for those by sockets of its own, which no tag reaches: they are known by the port that is
 * listened on (a bit in `ports`) and by their addresses. `multipath[0]` says whether there are any.
 */
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

/* ---- what is remembered */

/* The draw before, by way. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} chances SEC(".maps");

struct fragment {
	__be32 source[4];
	__be32 destination[4];
	__u32 id;
	__u32 protocol;
};

/* First fragments that were meant: the later ones have no ports. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment);
	__type(value, __u32);
} fragments SEC(".maps");

/* ---- reading a packet */

struct packet {
	struct fragment who; /* addresses and protocol of every packet; id is of a fragment only */
	__u16 source_port;
	__u16 destination_port;
	bool six;
	bool first; /* of several fragments */
	bool later;
};

static __always_inline int at(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET);
}

static __always_inline int read4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;
	__u16 fragment;

	if (at(skb, 0, &ip, sizeof(ip)))
		return -1;
	packet->who.source[0] = ip.saddr;
	packet->who.destination[0] = ip.daddr;
	packet->who.protocol = ip.protocol;
	fragment = bpf_ntohs(ip.frag_off);
	packet->later = fragment & IP_OFFSET;
	packet->first = (fragment & IP_MORE) && !packet->later;
	packet->who.id = fragment & (IP_MORE | IP_OFFSET) ? ip.id : 0;
	return ip.ihl * 4;
}

/* Extension headers that may stand before the one that matters (RFC 8200, 4). */
static __always_inline int read6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip;
	__u32 offset = sizeof(ip);
	__u8 next;

	if (at(skb, 0, &ip, sizeof(ip)))
		return -1;
	packet->six = true;
	__builtin_memcpy(packet->who.source, &ip.saddr, sizeof(packet->who.source));
	__builtin_memcpy(packet->who.destination, &ip.daddr, sizeof(packet->who.destination));
	next = ip.nexthdr;
	for (int i = 0; i < EXTENSIONS_MOST; i++) {
		__u8 extension[8];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT &&
		    next != IPPROTO_AH)
			break;
		if (packet->later || at(skb, offset, extension, sizeof(extension)))
			break;
		if (next == IPPROTO_FRAGMENT) {
			__u16 fragment = (__u16)extension[2] << 8 | extension[3];

			packet->later = fragment & IP6_OFFSET;
			packet->first = !packet->later && (fragment & 1);
			__builtin_memcpy(&packet->who.id, &extension[4], 4);
			offset += 8;
		} else if (next == IPPROTO_AH) {
			offset += (extension[1] + 2) * 4;
		} else {
			offset += (extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	packet->who.protocol = next;
	return offset;
}

static __always_inline bool read(struct __sk_buff *skb, struct packet *packet)
{
	__be16 both[2];
	int offset;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		offset = read4(skb, packet);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		offset = read6(skb, packet);
	else
		return false;
	if (offset < 0)
		return false;
	if (!packet->later && (packet->who.protocol == IPPROTO_TCP || packet->who.protocol == IPPROTO_UDP)) {
		if (at(skb, offset, both, sizeof(both)))
			return false;
		packet->source_port = bpf_ntohs(both[0]);
		packet->destination_port = bpf_ntohs(both[1]);
	}
	return true;
}

/* ---- is it meant: protocol, ports, addresses */

static __always_inline bool of_protocol(const struct packet *packet, __u32 protocol)
{
	return !protocol || packet->who.protocol == protocol ||
	       (protocol == IPPROTO_ICMP && packet->who.protocol == IPPROTO_ICMPV6);
}

static __always_inline bool listed(__u32 kind, __u16 port)
{
	__u32 key = kind * 1024 + (port >> 6);
	__u64 *bits = bpf_map_lookup_elem(&ports, &key);

	return bits && *bits >> (port & 63) & 1;
}

static __always_inline bool of_ports(const struct packet *packet, __u32 asks, __u32 way)
{
	__u16 local = way == EGRESS ? packet->source_port : packet->destination_port;
	__u16 remote = way == EGRESS ? packet->destination_port : packet->source_port;

	return (!(asks & 1 << PORTS) || listed(PORTS, local) || listed(PORTS, remote)) &&
	       (!(asks & 1 << LOCAL_PORTS) || listed(LOCAL_PORTS, local)) &&
	       (!(asks & 1 << REMOTE_PORTS) || listed(REMOTE_PORTS, remote));
}

static __always_inline __u32 zone_of(const __be32 *address, bool six)
{
	__u32 *found;

	if (six) {
		struct network6 key = {.length = 128};

		__builtin_memcpy(key.address, address, sizeof(key.address));
		found = bpf_map_lookup_elem(&networks6, &key);
	} else {
		struct network4 key = {.length = 32, .address = address[0]};

		found = bpf_map_lookup_elem(&networks4, &key);
	}
	return found ? *found : 0;
}

static __always_inline bool of_addresses(const struct packet *packet, __u32 asks, __u32 way)
{
	__u32 from, to;

	if (asks & ASKS_PEERS)
		return zone_of(way == EGRESS ? packet->who.destination : packet->who.source, packet->six) & PEER;
	if (!(asks & (ASKS_A_TO_B | ASKS_B_TO_A)))
		return true;
	from = zone_of(packet->who.source, packet->six);
	to = zone_of(packet->who.destination, packet->six);
	return ((asks & ASKS_A_TO_B) && (from & ZONE_A) && (to & ZONE_B)) ||
	       ((asks & ASKS_B_TO_A) && (from & ZONE_B) && (to & ZONE_A));
}

/* ---- is it meant: whose it is */

static __always_inline bool below(struct __sk_buff *skb, const struct settings *set)
{
	if (set->cgroup_level)
		return bpf_skb_ancestor_cgroup_id(skb, set->cgroup_level) == set->cgroup;
	for (int level = 1; level < CGROUP_LEVELS; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id)
			return false;
		if (id == set->cgroup)
			return true;
	}
	return false;
}

/* A packet that goes out mostly knows its socket; an answer to a SYN knows its listener's. Only here a program may ask for
 * the cgroup of a socket: it is tagged, to be known on the way in.
 */
static __always_inline bool sent_by_them(struct __sk_buff *skb, const struct settings *set)
{
	struct bpf_sock *sk = skb->sk, *whole;
	__u64 make = 0;

	if (!sk)
		return false;
	if (set->scope == ONE_CGROUP && below(skb, set))
		make = BPF_SK_STORAGE_GET_F_CREATE;
	whole = bpf_sk_fullsock(sk);
	if (!whole)
		whole = bpf_get_listener_sock(sk);
	return (whole && bpf_sk_storage_get(&tags, whole, NULL, make)) || make;
}

/* The socket that a packet is for (or, backwards, from) is looked up as the kernel itself will. */
static __always_inline bool found_as_theirs(struct __sk_buff *skb, const struct packet *packet, bool backwards)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;
	bool theirs;

	if (packet->six) {
		size = sizeof(tuple.ipv6);
		__builtin_memcpy(tuple.ipv6.saddr, backwards ? packet->who.destination : packet->who.source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, backwards ? packet->who.source : packet->who.destination, 16);
		tuple.ipv6.sport = bpf_htons(backwards ? packet->destination_port : packet->source_port);
		tuple.ipv6.dport = bpf_htons(backwards ? packet->source_port : packet->destination_port);
	} else {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.saddr = backwards ? packet->who.destination[0] : packet->who.source[0];
		tuple.ipv4.daddr = backwards ? packet->who.source[0] : packet->who.destination[0];
		tuple.ipv4.sport = bpf_htons(backwards ? packet->destination_port : packet->source_port);
		tuple.ipv4.dport = bpf_htons(backwards ? packet->source_port : packet->destination_port);
	}
	if (packet->who.protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else if (packet->who.protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		return false;
	if (!sk)
		return false;
	theirs = !!bpf_sk_storage_get(&tags, sk, NULL, 0);
	bpf_sk_release(sk);
	return theirs;
}

static __always_inline bool has_multipath(void)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&multipath, &zero);

	return any && *any;
}

static __always_inline bool of_multipath(const struct packet *packet, __u32 way)
{
	bool out = way == EGRESS;
	struct connection one = {
		.local_port = out ? packet->source_port : packet->destination_port,
		.remote_port = out ? packet->destination_port : packet->source_port,
	};

	if (packet->who.protocol != IPPROTO_TCP || packet->later)
		return false;
	if (listed(MULTIPATH_PORTS, one.local_port))
		return true;
	__builtin_memcpy(one.local, out ? packet->who.source : packet->who.destination, sizeof(one.local));
	__builtin_memcpy(one.remote, out ? packet->who.destination : packet->who.source, sizeof(one.remote));
	return bpf_map_lookup_elem(&connections, &one);
}

/* ---- what becomes of it */

#define MARK_KIND 0x5c000000
#define MARK_KIND_BITS 0xff000000
#define MARK_INGRESS 0x00800000
#define MARK_ORDER 0x007fffff

/* A packet that one of us has put back says so by its mark: the way that it was on, and the number of who did it. Those
 * before him have seen it already. On loopback what was taken from the way in comes back by the way out.
 */
static __always_inline bool has_been_here(struct __sk_buff *skb, const struct hook *hook, __u32 way)
{
	bool ingress = skb->mark & MARK_INGRESS;

	if ((skb->mark & MARK_KIND_BITS) != MARK_KIND)
		return false;
	if (ingress != (way == INGRESS))
		return ingress && skb->ifindex == LOOPBACK_INDEX;
	return (skb->mark & MARK_ORDER) >= hook->order;
}

/* netem's get_crandom and its comparison. */
static __always_inline bool hit(const struct settings *set, __u32 way)
{
	__u64 chance = draw() >> 32, rho = (__u64)set->correlation + 1;
	__u32 *before;

	if (set->correlation) {
		before = bpf_map_lookup_elem(&chances, &way);
		if (!before)
			return false;
		chance = (chance * ((1ULL << 32) - rho) + *before * rho) >> 32;
		*before = chance;
	}
	return set->share && chance <= set->share;
}

/* Whoever sends is not told, as netem does not tell: TCP would take a drop here for a full queue of its own machine, and try
 * again at once instead of waiting as for a loss. No device has the number 0.
 */
static __always_inline int vanish(__u32 way)
{
	return way == EGRESS ? bpf_redirect(0, 0) : TC_ACT_SHOT;
}

/* One bit of the IP header, so that whoever gets it next throws it away: the header's own checksum is looked at everywhere,
 * where that of the data is left to the network card, or to nobody between two programs of one machine. IPv6 has none: there
 * it is a bit of the version. A frame that the card is still to cut into segments would get new headers: it is dropped.
 */
static __always_inline int corrupt(struct __sk_buff *skb, const struct hook *hook, __u32 way, bool six)
{
	__u64 chance = draw();
	__u32 offset = hook->header, bit = chance >> 8;
	__u8 byte, version;

	if (skb->gso_segs > 1) {
		count(CORRUPTED);
		return vanish(way);
	}
	if (at(skb, 0, &version, 1) || bpf_skb_load_bytes(skb, offset, &byte, 1) || byte != version) {
		count(FAILED); /* it does not begin where it should */
		return TC_ACT_UNSPEC;
	}
	if (six) {
		bit = 4 + (bit & 3);
	} else {
		bit &= 7;
		offset += chance & 1 ? 4 + (chance >> 1 & 1) : 10 + (chance >> 1 & 1); /* its number, or the checksum */
		if (bpf_skb_load_bytes(skb, offset, &byte, 1))
			return TC_ACT_UNSPEC;
	}
	byte ^= 1 << bit;
	count(bpf_skb_store_bytes(skb, offset, &byte, 1, 0) ? FAILED : CORRUPTED);
	return TC_ACT_UNSPEC;
}

/* The second one is put where the first is; on loopback it goes out again, for only then it keeps its route, without which
 * what comes from 127.0.0.1 is taken for a martian.
 */
static __always_inline int duplicate(struct __sk_buff *skb, const struct hook *hook, __u32 way)
{
	__u64 flags = way == INGRESS && skb->ifindex != LOOPBACK_INDEX ? BPF_F_INGRESS : 0;
	__u32 mark = skb->mark;
	long refused;

	skb->mark = MARK_KIND | (way == INGRESS ? MARK_INGRESS : 0) | hook->order;
	refused = bpf_clone_redirect(skb, skb->ifindex, flags);
	skb->mark = mark;
	count(refused ? FAILED : DUPLICATED);
	return TC_ACT_UNSPEC;
}

static __always_inline int strike(struct __sk_buff *skb, const struct settings *set, const struct hook *hook, __u32 way, bool six)
{
	switch (set->verdict) {
	case DROP:
		count(DROPPED);
		return vanish(way);
	case CORRUPT:
		return corrupt(skb, hook, way, six);
	case DUPLICATE:
		return duplicate(skb, hook, way);
	case DIVERT:
		if (!hook->line)
			break;
		count(DIVERTED);
		return bpf_redirect(hook->line, 0);
	case CLASSIFY:
		count(CLASSIFIED);
		skb->priority = set->class;
		return TC_ACT_UNSPEC;
	}
	count(FAILED);
	return TC_ACT_UNSPEC;
}

static __always_inline bool meant(struct __sk_buff *skb, struct packet *packet, struct settings *set, __u32 way)
{
	__u32 asks_ports = set->asks & (1 << PORTS | 1 << LOCAL_PORTS | 1 << REMOTE_PORTS), yes = 1;
	bool sent = false, several = set->scope != EVERYTHING && has_multipath();

	if (way == EGRESS && set->scope != EVERYTHING) {
		bool came_back = (skb->mark & MARK_KIND_BITS) == MARK_KIND; /* from a line, where it lost its socket */

		sent = sent_by_them(skb, set);
		if (!sent && !came_back && !several)
			return false;
	}
	if (!read(skb, packet) || !of_protocol(packet, set->protocol) || !of_addresses(packet, set->asks, way))
		return false;
	if (packet->later && (asks_ports || (set->scope != EVERYTHING && !sent)))
		return bpf_map_lookup_elem(&fragments, &packet->who);
	if (!of_ports(packet, set->asks, way))
		return false;
	if (set->scope != EVERYTHING && !sent && !(several && of_multipath(packet, way)) &&
	    !found_as_theirs(skb, packet, way == EGRESS))
		return false;
	if (packet->first)
		bpf_map_update_elem(&fragments, &packet->who, &yes, BPF_ANY);
	return true;
}

static __always_inline int decide(struct __sk_buff *skb, __u32 way)
{
	struct place here = {.ifindex = skb->ifindex, .way = way};
	struct packet packet = {};
	struct settings *set;
	struct hook *hook;
	__u32 zero = 0;

	set = bpf_map_lookup_elem(&settings, &zero);
	if (!set || !(set->ways & 1 << way))
		return TC_ACT_UNSPEC;
	if (set->counts_all)
		count(SEEN);
	hook = bpf_map_lookup_elem(&hooks, &here);
	if (!hook || has_been_here(skb, hook, way) || (skb->vlan_present && (skb->vlan_tci & VLAN_ID)))
		return TC_ACT_UNSPEC;
	if (!meant(skb, &packet, set, way) || !lease_holds())
		return TC_ACT_UNSPEC;
	if (!hit(set, way)) {
		count(MISSED);
		return TC_ACT_UNSPEC;
	}
	return strike(skb, set, hook, way, packet.six);
}

SEC("tc")
int egress(struct __sk_buff *skb)
{
	return decide(skb, EGRESS);
}

SEC("tc")
int ingress(struct __sk_buff *skb)
{
	return decide(skb, INGRESS);
}

/* ---- new sockets of the process: noted when it makes them */
SEC("cgroup/sock_create")
int note(struct bpf_sock *sk)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32, any = 0;

	if (bpf_map_lookup_elem(&processes, &process) || bpf_map_lookup_elem(&processes, &any))
		bpf_sk_storage_get(&tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}
