/* Makes socket, bind and connect fail with a chosen error for what runs in one cgroup: IPv4 and IPv6. Linux >= 5.18. */
#include "squall.h"

enum { SOCKET, BIND, CONNECT };
enum { CALLS, HITS };

struct rule {
	__u32 calls;	/* 1 << SOCKET ... */
	__s32 error;	/* negative */
	__u32 share;
	__u32 unused;
	__u64 times;	/* 0: no end */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} spent SEC(".maps");

#define ERRNO_MOST 4095
#define PASS 1
#define FAIL 0

static __always_inline int decide(__u32 call)
{
	__u32 zero = 0;
	struct rule *rule = bpf_map_lookup_elem(&rules, &zero);
	__u64 *hits = bpf_map_lookup_elem(&spent, &zero);
	int error;

	if (!rule || !hits || !lease_holds() || !(rule->calls & 1 << call))
		return PASS;
	count(CALLS);
	if (!drawn(rule->share) || (rule->times && *hits >= rule->times))
		return PASS;
	__sync_fetch_and_add(hits, 1);
	count(HITS);
	error = rule->error;
	if (error < -ERRNO_MOST || error > -1)	/* the verifier of newer kernels wants to see it */
		return PASS;
	bpf_set_retval(error);
	return FAIL;
}

SEC("cgroup/sock_create")
int makes(struct bpf_sock *context)
{
	return decide(SOCKET);
}

SEC("cgroup/bind4")
int binds4(struct bpf_sock_addr *context)
{
	return decide(BIND);
}

SEC("cgroup/bind6")
int binds6(struct bpf_sock_addr *context)
{
	return decide(BIND);
}

SEC("cgroup/connect4")
int connects4(struct bpf_sock_addr *context)
{
	return decide(CONNECT);
}

SEC("cgroup/connect6")
int connects6(struct bpf_sock_addr *context)
{
	return decide(CONNECT);
}
