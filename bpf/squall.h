/* What every program shares: its lease, its draws, its counters, and the few kernel fields that any of them reads.
 *
 * Included before <bpf/bpf_helpers.h>. Types of the user-space interface come from <linux/bpf.h>; of the kernel's own
 * structures only the fields that are used are declared, and CO-RE finds them in the running kernel's BTF.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "GPL";

/* ---- lease: a program works until then and lets everything pass afterwards.
 *
 * The owner writes `until` (CLOCK_BOOTTIME, which goes on while the machine sleeps) several times a second, one second
 * ahead. 0: never begun. `bpf_ktime_get_boot_ns` is there from 5.8 on.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lease SEC(".maps");

static __always_inline bool lease_holds(void)
{
	__u32 zero = 0;
	__u64 *until = bpf_map_lookup_elem(&lease, &zero);

	return until && bpf_ktime_get_boot_ns() < *until;
}

/* ---- draws: splitmix64 over a counter that begins at the seed, so that the n-th draw is the same in every run.
 *
 * Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014). Two CPUs that draw at the very
 * same moment may get the same draw: the counter is not worth a lock on each packet.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} draws SEC(".maps");

static __always_inline __u64 draw(void)
{
	__u32 zero = 0;
	__u64 *next = bpf_map_lookup_elem(&draws, &zero), z;

	if (!next)
		return 0;
	z = *next += 0x9e3779b97f4a7c15ULL;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* Shares are 32-bit fixed point: 0 is never, 0xffffffff always, as netem has them. */
static __always_inline bool drawn(__u32 share)
{
	return share == 0xffffffff || (share && (__u32)(draw() >> 32) < share);
}

/* ---- counters, by an index that each object names for itself; per CPU, summed by the reader */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		(*value)++;
}
