/* What a language runtime does, seen from its own functions: goroutines that wait long, late timers, collections, the
 * time between two looks of an event loop at its sockets. Watches only: changes nothing in the target.
 *
 * Registers are those of Go's ABI (go.dev/s/regabi) on x86-64: r14 is the goroutine, arguments come in rax, rbx, rcx, rdi.
 */
#include <linux/ptrace.h>

#include "squall.h"

enum { COLLECTIONS, WAITS, LATE_TIMERS, LOOPS };

struct settings {
	__u64 long_wait_ns;
	__u64 late_timer_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Who called: the return address, and the one of the frame below, for functions that only pass on. */
struct caller {
	__u64 pc;
	__u64 below;
};

struct wait {
	__u64 since_ns;
	struct caller caller;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64); /* the goroutine */
	__type(value, struct wait);
} parked SEC(".maps");

struct tally {
	__u64 count;
	__u64 total_ns;
	__u64 longest_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct caller);
	__type(value, struct tally);
} long_waits SEC(".maps"), late_timers SEC(".maps");

/* Of things that happen in one thread at a time: when it began, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} busy_since SEC(".maps"), collecting_since SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");
enum { BUSY, COLLECTING };

static __always_inline struct settings *wanted(void)
{
	__u32 zero = 0;

	return lease_holds() ? bpf_map_lookup_elem(&settings, &zero) : NULL;
}

static __always_inline void add(struct tally *tally, __u64 ns)
{
	__sync_fetch_and_add(&tally->count, 1);
	__sync_fetch_and_add(&tally->total_ns, ns);
	if (ns > tally->longest_ns)
		tally->longest_ns = ns;
}

static __always_inline void add_by_caller(void *map, struct caller *caller, __u64 ns)
{
	struct tally first = { .count = 1, .total_ns = ns, .longest_ns = ns };
	struct tally *there = bpf_map_lookup_elem(map, caller);

	if (there)
		add(there, ns);
	else
		bpf_map_update_elem(map, caller, &first, BPF_NOEXIST);
}

/* At a function's entry the return address is on top of the stack, and rbp is still the caller's frame. */
static __always_inline void read_caller(struct pt_regs *regs, struct caller *caller)
{
	bpf_probe_read_user(&caller->pc, sizeof(caller->pc), (void *)regs->rsp);
	bpf_probe_read_user(&caller->below, sizeof(caller->below), (void *)(regs->rbp + 8));
}

/* runtime.gopark(...): this goroutine is about to wait. */
SEC("uprobe")
int goroutine_parks(struct pt_regs *regs)
{
	struct wait wait = {};
	__u64 goroutine = regs->r14;

	if (!wanted())
		return 0;
	wait.since_ns = bpf_ktime_get_ns();
	read_caller(regs, &wait.caller);
	bpf_map_update_elem(&parked, &goroutine, &wait, BPF_ANY);
	return 0;
}

/* runtime.ready(gp, ...): that goroutine may run again. */
SEC("uprobe")
int goroutine_is_ready(struct pt_regs *regs)
{
	struct settings *set = wanted();
	__u64 goroutine = regs->rax, waited;
	struct wait *wait;

	if (!set)
		return 0;
	wait = bpf_map_lookup_elem(&parked, &goroutine);
	if (!wait)
		return 0;
	count(WAITS);
	waited = bpf_ktime_get_ns() - wait->since_ns;
	if (waited > set->long_wait_ns) {
		struct caller caller = wait->caller;

		add_by_caller(&long_waits, &caller, waited);
	}
	bpf_map_delete_elem(&parked, &goroutine);
	return 0;
}

/* runtime.goroutineReady, time.sendTime, time.goFunc (arg any, seq uintptr, delay int64): a timer fires. Go >= 1.23. */
SEC("uprobe")
int timer_fires(struct pt_regs *regs)
{
	struct settings *set = wanted();
	__s64 late_ns = regs->rdi;

	if (!set || late_ns < 0)
		return 0;
	if ((__u64)late_ns > set->late_timer_ns) {
		struct caller caller = {};

		read_caller(regs, &caller);
		count(LATE_TIMERS);
		add_by_caller(&late_timers, &caller, late_ns);
	}
	return 0;
}

/* runtime.gcMarkTermination: once in each collection of a Go program. */
SEC("uprobe")
int go_collects(struct pt_regs *regs)
{
	if (wanted())
		count(COLLECTIONS);
	return 0;
}

static __always_inline void begin(void *map)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(map, &thread, &now, BPF_ANY);
}

static __always_inline void end(void *map, __u32 which)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 *since = bpf_map_lookup_elem(map, &thread);
	struct tally *tally = bpf_map_lookup_elem(&tallies, &which);

	if (since && tally)
		add(tally, bpf_ktime_get_ns() - *since);
	bpf_map_delete_elem(map, &thread);
}

/* The entry of CPython's collector, and its return. */
SEC("uprobe")
int python_collects(struct pt_regs *regs)
{
	if (wanted()) {
		count(COLLECTIONS);
		begin(&collecting_since);
	}
	return 0;
}

SEC("uretprobe")
int python_collected(struct pt_regs *regs)
{
	if (wanted())
		end(&collecting_since, COLLECTING);
	return 0;
}

/* epoll_wait: between its return and the next call the loop works, and nothing else of it is served. */
SEC("uprobe")
int loop_looks(struct pt_regs *regs)
{
	if (wanted())
		end(&busy_since, BUSY);
	return 0;
}

SEC("uretprobe")
int loop_works(struct pt_regs *regs)
{
	if (wanted()) {
		count(LOOPS);
		begin(&busy_since);
	}
	return 0;
}
