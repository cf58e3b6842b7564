/* Makes opening, reading, writing and looking at files fail, for chosen processes or one cgroup, where the kernel asks its
 * security modules whether it may: fmod_ret on security_*, there since 5.7 where trampolines are allowed.
 *
 * What is asked is asked before anything is done: a write that fails has written nothing. A program cannot sleep, so
 * there are no delays here. `fsync` asks nobody.
 */
#include "squall.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define WRITES 2	/* MAY_WRITE */
#define READS 4		/* MAY_READ */
#define INNER 0x20000000	/* FMODE_NOACCOUNT: what a stacked file system (overlayfs) has open itself */
#define KIND 0170000
#define PLAIN 0100000
#define BLOCKS 0060000
#define PATHS_MOST 4
#define CGROUP_LEVELS 16
#define PATH_WORDS 32
#define PATH_ROOM 512
#define TICK_NS 10000000ULL	/* /proc tells start times to a hundredth of a second */

enum { OPEN, READ, WRITE, STAT };
enum { CALLS, HITS };

struct task_struct {
	struct task_struct *group_leader;
	__u64 start_boottime;
} __attribute__((preserve_access_index));

struct inode {
	__u16 i_mode;
} __attribute__((preserve_access_index));

struct dentry {
	struct inode *d_inode;
} __attribute__((preserve_access_index));

struct path {
	struct dentry *dentry;
} __attribute__((preserve_access_index));

struct file {
	unsigned int f_mode;
	struct path f_path;
	struct inode *f_inode;
} __attribute__((preserve_access_index));

/* A path is compared by words: those bytes of it that count, and where it must end or go on with a slash. */
struct pattern {
	__u64 word[PATH_WORDS];
	__u64 mask[PATH_WORDS];
	__u32 length;
	__u32 unused;
};

struct rule {
	__u32 calls;	/* 1 << OPEN ... */
	__s32 error;	/* negative */
	__u32 share;
	__u32 paths;
	__u64 times;	/* 0: no end */
	__u64 cgroup;
	struct pattern path[PATHS_MOST];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* Process -> its start time in clock ticks: a successor with the same number is another process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} spent SEC(".maps");

struct room {
	__u64 word[PATH_ROOM / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct room);
} rooms SEC(".maps");

/* A cgroup is asked for by programs of its own: the helper is not there for these programs before 5.13. */
static __always_inline bool chosen(const struct rule *rule, bool by_cgroup)
{
	struct task_struct *task, *leader;
	__u32 process;
	__u64 *started, begun;
	int level;

	if (by_cgroup) {
#pragma unroll
		for (level = 1; level < CGROUP_LEVELS; level++)
			if (bpf_get_current_ancestor_cgroup_id(level) == rule->cgroup)
				return true;
		return false;
	}
	process = bpf_get_current_pid_tgid() >> 32;
	started = bpf_map_lookup_elem(&processes, &process);
	if (!started)
		return false;
	task = (void *)bpf_get_current_task();
	leader = BPF_CORE_READ(task, group_leader);
	begun = BPF_CORE_READ(leader, start_boottime);
	return begun / TICK_NS == *started;
}

static __always_inline bool begins(const struct room *room, const struct pattern *pattern)
{
	__u32 at = pattern->length & 0xff;
	char next;
	int i;

#pragma unroll
	for (i = 0; i < PATH_WORDS; i++)
		if ((room->word[i] & pattern->mask[i]) != pattern->word[i])
			return false;
	next = ((const char *)room)[at];
	return !next || next == '/' || at == 0;
}

static __always_inline bool named(const struct rule *rule, struct path *path)
{
	__u32 zero = 0, number;
	struct room *room;

	if (!rule->paths)
		return true;
	room = bpf_map_lookup_elem(&rooms, &zero);
	if (!room || bpf_d_path(path, (char *)room, sizeof(*room)) <= 0)
		return false;
	for (number = 0; number < PATHS_MOST; number++)
		if (number < rule->paths && begins(room, &rule->path[number]))
			return true;
	return false;
}

static __always_inline bool holds_data(struct inode *inode)
{
	__u16 kind = BPF_CORE_READ(inode, i_mode) & KIND;

	return kind == PLAIN || kind == BLOCKS;
}

static __always_inline struct rule *asked(__u32 call, int before, bool by_cgroup)
{
	__u32 zero = 0;
	struct rule *rule;

	if (before || !lease_holds())
		return NULL;
	rule = bpf_map_lookup_elem(&rules, &zero);
	return rule && rule->calls & 1 << call && chosen(rule, by_cgroup) ? rule : NULL;
}

static __always_inline int answer(const struct rule *rule)
{
	__u32 zero = 0;
	__u64 *hits;

	count(CALLS);
	if (!drawn(rule->share))
		return 0;
	hits = bpf_map_lookup_elem(&spent, &zero);
	if (!hits || (rule->times && *hits >= rule->times))
		return 0;
	__sync_fetch_and_add(hits, 1);
	count(HITS);
	return rule->error;
}

static __always_inline int opened(struct file *file, int before, bool by_cgroup)
{
	struct rule *rule = asked(OPEN, before, by_cgroup);

	/* The kernel asks twice about a file of a stacked file system: once is enough. */
	return rule && !(file->f_mode & INNER) && named(rule, &file->f_path) ? answer(rule) : before;
}

static __always_inline int used(struct file *file, int mask, int before, bool by_cgroup)
{
	struct rule *rule = asked(mask & WRITES ? WRITE : READ, before, by_cgroup);

	if (!rule || file->f_mode & INNER || !(mask & (READS | WRITES)) || !holds_data(file->f_inode) || !named(rule, &file->f_path))
		return before;
	return answer(rule);
}

static __always_inline int looked_at(struct path *path, int before, bool by_cgroup)
{
	struct rule *rule = asked(STAT, before, by_cgroup);

	return rule && named(rule, path) ? answer(rule) : before;
}

SEC("fmod_ret/security_file_open")
int BPF_PROG(process_opens, struct file *file, int before)
{
	return opened(file, before, false);
}

SEC("fmod_ret/security_file_permission")
int BPF_PROG(process_uses, struct file *file, int mask, int before)
{
	return used(file, mask, before, false);
}

SEC("fmod_ret/security_inode_getattr")
int BPF_PROG(process_looks, struct path *path, int before)
{
	return looked_at(path, before, false);
}

SEC("fmod_ret/security_file_open")
int BPF_PROG(cgroup_opens, struct file *file, int before)
{
	return opened(file, before, true);
}

SEC("fmod_ret/security_file_permission")
int BPF_PROG(cgroup_uses, struct file *file, int mask, int before)
{
	return used(file, mask, before, true);
}

SEC("fmod_ret/security_inode_getattr")
int BPF_PROG(cgroup_looks, struct path *path, int before)
{
	return looked_at(path, before, true);
}
