/* The way back from a delay line. A filter has sent packets to a TAP device of the line's own (one for each interface
 * and direction); user space writes each one back to it when it is due, and `back` puts it on where it was going.
 *
 * Nothing here needs the lease: what user space still holds when a lease lapses must come out all the same.
 */
#include "squall.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#define MARK_KIND 0x5c000000
#define MARK_KIND_BITS 0xff000000
#define LOOPBACK_ADDRESS 0x7f000001
#define IP4_DESTINATION (ETH_HLEN + 16)

enum { EGRESS, INGRESS, LOOPBACK };
enum { RETURNED, FOREIGN };

struct origin {
	__u32 ifindex;
	__u32 way;
	__u32 mark;
	__u8 tap_address[8]; /* six bytes of it */
};

/* By the TAP's ifindex. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct origin);
} origins SEC(".maps");

/* Some program of the machine's talks on every interface it finds: that is not to come out at the origin. */
static __always_inline bool by_the_tap_itself(struct __sk_buff *skb, const struct origin *origin)
{
	__u8 source[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, ETH_ALEN))
		return true;
	for (int i = 0; i < ETH_ALEN; i++)
		if (source[i] != origin->tap_address[i])
			return false;
	return true;
}

/* A packet on loopback needs its route, or it is taken for a martian (127.0.0.1 that comes from outside). Sending it
 * out of loopback anew looks one up; that of 127.0.0.1 is right for every local address, where another's own would not
 * be found by way of this interface. The true address waits in the priority until `arrive`.
 */
static __always_inline int out_of_loopback(struct __sk_buff *skb, __u32 ifindex)
{
	__be32 loopback = bpf_htonl(LOOPBACK_ADDRESS), destination;

	if (bpf_skb_load_bytes(skb, IP4_DESTINATION, &destination, 4))
		return TC_ACT_SHOT;
	skb->priority = destination;
	if (bpf_skb_store_bytes(skb, IP4_DESTINATION, &loopback, 4, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_neigh(ifindex, NULL, 0, 0);
}

SEC("tc")
int back(struct __sk_buff *skb)
{
	__u32 tap = skb->ifindex;
	struct origin *origin = bpf_map_lookup_elem(&origins, &tap);

	if (!origin || by_the_tap_itself(skb, origin)) {
		count(FOREIGN);
		return TC_ACT_SHOT;
	}
	count(RETURNED);
	skb->mark = origin->mark;
	/* It is for this host, if not for the TAP's own address; only such packets are ever sent here. */
	if (skb->pkt_type == PACKET_OTHERHOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (origin->way == INGRESS)
		return bpf_redirect(origin->ifindex, BPF_F_INGRESS);
	if (origin->way == LOOPBACK && skb->protocol == bpf_htons(ETH_P_IP))
		return out_of_loopback(skb, origin->ifindex);
	return bpf_redirect(origin->ifindex, 0);
}

/* First on the way out of loopback. */
SEC("tc")
int arrive(struct __sk_buff *skb)
{
	__be32 destination = skb->priority;

	if ((skb->mark & MARK_KIND_BITS) == MARK_KIND && destination && skb->protocol == bpf_htons(ETH_P_IP)) {
		skb->priority = 0;
		if (bpf_skb_store_bytes(skb, IP4_DESTINATION, &destination, 4, 0))
			return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}
