/* A busy wait at the entry of a function, and how long it, the function, and the time between two entries really took.
 *
 * On the instruction at the entry stands `enter_looped` (Linux >= 5.17, which has bpf_loop) or `enter_bounded`; where a
 * direct call of the function returns to stands `leave`. What belongs together is told by the goroutine: Go keeps its
 * address in r14 (internal ABI, Go >= 1.17). The kernel's own return probe is of no use: it puts an address of its own
 * on a stack that Go moves.
 */
#include "squall.h"

#include <asm/ptrace.h>

#ifndef NULL
#define NULL ((void *)0)
#endif

enum { CALLS, DELAYED, CUT_SHORT, LEFT };

struct settings {
	__u64 delay_ns;
	__u32 share;
	__u32 goroutines; /* 1: r14 is the goroutine */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

/* ---- histograms: eight buckets to each power of two, so that a bucket is at most an eighth wide */
enum { INJECTED, HANDLED, BETWEEN, HISTOGRAMS };
#define BUCKETS 320

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HISTOGRAMS * BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} took SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HISTOGRAMS);
	__type(key, __u32);
	__type(value, __u64);
} longest SEC(".maps");

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u64 rest = ns;
	__u32 power = 0;

	if (ns < 8)
		return ns;
	if (rest >> 32) { power += 32; rest >>= 32; }
	if (rest >> 16) { power += 16; rest >>= 16; }
	if (rest >> 8) { power += 8; rest >>= 8; }
	if (rest >> 4) { power += 4; rest >>= 4; }
	if (rest >> 2) { power += 2; rest >>= 2; }
	if (rest >> 1)
		power += 1;
	power = (power - 2) * 8 + ((ns >> (power - 3)) & 7);
	return power < BUCKETS ? power : BUCKETS - 1;
}

static __always_inline void record(__u32 which, __u64 ns)
{
	__u32 at = which * BUCKETS + bucket_of(ns);
	__u64 *count = bpf_map_lookup_elem(&took, &at), *most = bpf_map_lookup_elem(&longest, &which);

	if (count)
		(*count)++;
	if (most && ns > *most)
		*most = ns;
}

/* ---- requests that are being handled, by goroutine; one that panics never leaves, so old ones make room */
struct entry {
	__u64 began_ns;
	__u64 ready_ns; /* when the wait was over */
	__u64 stack;
	__u64 is_watched; /* it will be told when this call returns */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct entry);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} last_entry SEC(".maps");

/* Where it was called from, for whoever attaches `leave` there: what lies on the stack at an entry is a return address. */
enum { SEEN = 1, WATCHED };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u64);
	__type(value, __u8);
} callers SEC(".maps");

/* A function that finds its stack too small grows it, one that is asked to make room for another goroutine does so, and
 * then both begin anew at the very same instruction: the first at once, on another stack; the second some time later,
 * on the same. That is one call, if it has not been left; which is only known of callers that are watched.
 */
#define GROWN_NS 50000
#define PREEMPTED_NS 200000000

static __always_inline bool begins_anew(struct entry *before, __u64 stack, __u64 now_ns)
{
	__u64 since_ns = now_ns - before->ready_ns;

	return before->is_watched && since_ns < (before->stack == stack ? PREEMPTED_NS : GROWN_NS);
}

struct until {
	__u64 ns;
};

static long turn(__u32 index, struct until *until)
{
	return bpf_ktime_get_ns() >= until->ns;
}

static __always_inline void wait_looped(__u64 until_ns)
{
	struct until until = {.ns = until_ns};

	bpf_loop(1 << 23, turn, &until, 0);
}

#define READ2 now = bpf_ktime_get_ns(); now = bpf_ktime_get_ns();
#define READ8 READ2 READ2 READ2 READ2

/* What the verifier of 5.10 can follow to its end: so many turns, each of some readings of the clock. */
static __always_inline void wait_bounded(__u64 until_ns)
{
	__u64 now;
	int index;

	for (index = 0; index < 3000; index++) {
		READ8 READ8 READ8 READ8
		if (now >= until_ns)
			break;
	}
}

static __always_inline void wait(struct settings *now, __u64 began_ns, bool looped)
{
	__u64 took_ns;

	if (looped)
		wait_looped(began_ns + now->delay_ns);
	else
		wait_bounded(began_ns + now->delay_ns);
	took_ns = bpf_ktime_get_ns() - began_ns;
	count(DELAYED);
	record(INJECTED, took_ns);
	if (took_ns < now->delay_ns)
		count(CUT_SHORT);
}

/* Whether this is a call that began before; otherwise it is written down. */
static __always_inline bool known(struct pt_regs *regs, __u64 began_ns)
{
	__u64 goroutine = regs->r14, caller = 0;
	struct entry *before, fresh = {.began_ns = began_ns, .ready_ns = began_ns, .stack = regs->rsp};
	__u8 seen = SEEN, *state;

	if (bpf_probe_read_user(&caller, sizeof(caller), (void *)regs->rsp))
		return false;
	state = bpf_map_lookup_elem(&callers, &caller);
	if (!state)
		bpf_map_update_elem(&callers, &caller, &seen, BPF_ANY);
	fresh.is_watched = state && *state == WATCHED;
	before = bpf_map_lookup_elem(&entries, &goroutine);
	if (before && begins_anew(before, regs->rsp, began_ns))
		return true;
	bpf_map_update_elem(&entries, &goroutine, &fresh, BPF_ANY);
	return false;
}

static __always_inline int enter(struct pt_regs *regs, bool looped)
{
	__u64 began_ns = bpf_ktime_get_ns(), *last, goroutine = regs->r14;
	struct settings *now;
	struct entry *entry;
	__u32 zero = 0;

	now = bpf_map_lookup_elem(&setting, &zero);
	if (!now || !lease_holds() || (now->goroutines && known(regs, began_ns)))
		return 0;
	count(CALLS);
	last = bpf_map_lookup_elem(&last_entry, &zero);
	if (last) {
		if (*last && began_ns > *last)
			record(BETWEEN, began_ns - *last);
		*last = began_ns;
	}
	if (!now->delay_ns || !drawn(now->share))
		return 0;
	wait(now, began_ns, looped);
	entry = now->goroutines ? bpf_map_lookup_elem(&entries, &goroutine) : NULL;
	if (entry)
		entry->ready_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("uprobe")
int enter_looped(struct pt_regs *regs)
{
	return enter(regs, true);
}

SEC("uprobe")
int enter_bounded(struct pt_regs *regs)
{
	return enter(regs, false);
}

SEC("uprobe")
int leave(struct pt_regs *regs)
{
	__u64 goroutine = regs->r14;
	struct entry *entry;

	if (!lease_holds())
		return 0;
	entry = bpf_map_lookup_elem(&entries, &goroutine);
	if (!entry)
		return 0;
	count(LEFT);
	record(HANDLED, bpf_ktime_get_ns() - entry->began_ns);
	bpf_map_delete_elem(&entries, &goroutine);
	return 0;
}
