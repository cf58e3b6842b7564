/* Decides what becomes of one system call of a process whose call sites lead here.
 *
 * Runs inside the target, on a slot's own stack, with nothing but system calls: no library, no floating point, no data
 * of its own beyond the control page. Every loop has a bound. What it cannot tell, it lets pass.
 */
#include "syscall_stub.h"

extern struct control control __attribute__((visibility("hidden")));

#define SYS_fstat 5
#define SYS_getpid 39
#define SYS_readlink 89
#define SYS_clock_gettime 228
#define SYS_process_vm_readv 310
#define CLOCK_MONOTONIC 1
#define CLOCK_MONOTONIC_COARSE 6	/* of the last tick: good enough for a lease, and much cheaper */
#define AT_FDCWD (-100)
#define EINTR 4
#define NAP_NS 20000000UL	/* how long a fault that has ended may still hold a call that waits */
#define PAGE 4096UL

static s64 call6(s64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;
	s64 result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static u64 now_ns(u64 clock)
{
	u64 time[2] = {0, 0};

	if (call6(SYS_clock_gettime, clock, (u64)time, 0, 0, 0, 0))
		return ~0UL;	/* without a clock no lease holds */
	return time[0] * 1000000000UL + time[1];
}

static u64 draw(void)
{
	/* splitmix64 over a counter that begins at the seed (Steele, Lea, Flood, OOPSLA 2014) */
	u64 n = __sync_add_and_fetch(&control.draws, 1), z = control.seed + n * 0x9e3779b97f4a7c15UL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9UL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebUL;
	return z ^ (z >> 31);
}

/* ---- which file a call is about */

struct shape {
	int path;	/* the argument that is a path, -1 for none */
	int folder;	/* the argument that is the folder it starts from, -1: the working directory */
	int fd;		/* the argument that is a descriptor, where there is no path */
};

static struct shape shape_of(u64 nr)
{
	switch (nr) {
	case 2: case 4: case 6: case 21: case 76: case 80: case 82: case 83: case 84: case 85: case 87: case 89: case 90:
		return (struct shape){0, -1, -1};	/* open, stat, ..., unlink, readlink, chmod */
	case 257: case 258: case 262: case 263: case 264: case 267: case 268: case 269: case 316: case 332: case 437: case 439:
		return (struct shape){1, 0, -1};	/* openat, mkdirat, newfstatat, unlinkat, renameat, ..., openat2 */
	default:
		return (struct shape){-1, -1, 0};	/* read, write, fsync, ... */
	}
}

static int is_data(u64 fd)
{
	u64 stat[18];
	u32 type;

	if (call6(SYS_fstat, fd, (u64)stat, 0, 0, 0, 0))
		return 0;
	type = (u32)stat[3] & 0170000;
	return type == 0100000 || type == 0060000;
}

static s64 link_of(const char *prefix, s64 number, char *into)
{
	char name[48], digits[12];
	int at = 0, count = 0;
	s64 length;

	for (; prefix[at] && at < 32; at++)
		name[at] = prefix[at];
	if (number >= 0) {
		do {
			digits[count++] = '0' + number % 10;
			number /= 10;
		} while (number && count < 11);
		while (count)
			name[at++] = digits[--count];
	}
	name[at] = 0;
	length = call6(SYS_readlink, (u64)name, (u64)into, 2 * PATH_SIZE - 1, 0, 0, 0);
	if (length < 0)
		return -1;
	into[length] = 0;
	return length;
}

/* Copies the caller's text without ever touching memory that may not be there: a wrong pointer is for the kernel to tell. */
static int text_at(u64 address, char *into)
{
	u64 here = PAGE - (address & (PAGE - 1)), most = 2 * PATH_SIZE - 1;
	u64 local[2] = {(u64)into, most}, remote[4] = {address, here < most ? here : most, address + here, 0};
	s64 copied;

	if (here < most)
		remote[3] = most - here;
	copied = call6(SYS_process_vm_readv, call6(SYS_getpid, 0, 0, 0, 0, 0, 0), (u64)local, 1, (u64)remote,
		       here < most ? 2 : 1, 0);
	if (copied <= 0)
		return 0;
	into[copied] = 0;
	return 1;
}

/* Takes "//", "/./" and "/../" out of an absolute path, by its letters: links are not followed. */
static void tidy(char *path)
{
	int from = 0, to = 0;

	while (path[from] && from < 2 * PATH_SIZE) {
		int end = from + 1;

		while (path[end] && path[end] != '/' && end < 2 * PATH_SIZE)
			end++;
		if (end == from + 3 && path[from + 1] == '.' && path[from + 2] == '.') {
			while (to > 0 && path[--to] != '/')
				;
		} else if (end > from + 1 && !(end == from + 2 && path[from + 1] == '.')) {
			while (from < end)
				path[to++] = path[from++];
		}
		from = end;
	}
	if (!to)
		path[to++] = '/';
	path[to] = 0;
}

/* The absolute path of what a call is about, in slot->link; 0 where it has none or it cannot be told. */
static int whole_path(struct slot *slot, struct shape shape)
{
	s64 length, at;

	if (shape.path < 0)
		return link_of("/proc/thread-self/fd/", (int)slot->args[shape.fd], slot->link) > 0 && slot->link[0] == '/';
	if (!text_at(slot->args[shape.path], slot->path))
		return 0;
	length = 0;
	if (slot->path[0] != '/') {
		if (shape.folder < 0 || (int)slot->args[shape.folder] == AT_FDCWD)
			length = link_of("/proc/thread-self/cwd", -1, slot->link);
		else
			length = link_of("/proc/thread-self/fd/", (int)slot->args[shape.folder], slot->link);
		if (length <= 0)
			return 0;
		slot->link[length++] = '/';
	}
	for (at = 0; slot->path[at]; at++) {
		if (length >= 2 * PATH_SIZE - 1)
			return 0;
		slot->link[length++] = slot->path[at];
	}
	slot->link[length] = 0;
	tidy(slot->link);
	return 1;
}

/* A pattern without `*` is a file, or a folder with all that is below it; `*` stands for any characters. */
static int fits(const char *pattern, const char *path)
{
	const char *star = 0, *retry = 0, *begin = pattern;
	int steps;

	for (steps = 0; steps < 65536; steps++) {
		if (*pattern == '*') {
			star = pattern++;
			retry = path;
		} else if (*pattern && *pattern == *path) {
			pattern++;
			path++;
		} else if (!*pattern && (!*path || (!star && (*path == '/' || (pattern > begin && pattern[-1] == '/'))))) {
			return 1;
		} else if (star && *retry) {
			pattern = star + 1;
			path = ++retry;
		} else {
			return 0;
		}
	}
	return 0;
}

static int about_these_files(struct slot *slot, const struct rule *rule)
{
	struct shape shape = shape_of(slot->nr);
	u64 number;

	if (shape.path < 0 && !is_data(slot->args[shape.fd]))
		return 0;
	if (!rule->paths)
		return 1;
	if (!whole_path(slot, shape))
		return 0;
	for (number = 0; number < rule->paths && number < PATHS_MOST; number++)
		if (fits(rule->path[number], slot->link))
			return 1;
	return 0;
}

/* ---- what becomes of it */

static int hit(const struct rule *rule)
{
	__sync_fetch_and_add(&control.calls, 1);
	if (rule->share <= 0xffffffffUL && (draw() >> 32) >= rule->share)
		return 0;
	if (rule->times && __sync_fetch_and_add(&control.spent, 1) >= rule->times)
		return 0;
	__sync_fetch_and_add(&control.hits, 1);
	return 1;
}

__attribute__((used)) void decide(struct slot *slot)
{
	u64 generation = control.generation, delay;
	const struct rule *rule = &control.rules[control.active & 1];

	slot->plan = PLAN_PASS;
	slot->until_ns = 0;
	slot->generation = generation;
	if (slot->nr >= BITMAP_WORDS * 64 || !(rule->calls[slot->nr / 64] >> slot->nr % 64 & 1))
		return;
	if (now_ns(CLOCK_MONOTONIC_COARSE) >= control.until_ns)
		return;
	if (!(rule->flags & RULE_CHILDREN) && (u64)call6(SYS_getpid, 0, 0, 0, 0, 0, 0) != control.process)
		return;
	if (rule->flags & RULE_FILES && !about_these_files(slot, rule))
		return;
	if (!hit(rule))
		return;
	delay = rule->delay_ns;
	if (rule->jitter_ns)
		delay += draw() % (2 * rule->jitter_ns + 1);	/* delay_ns is the least: delay - jitter */
	if (delay)
		slot->until_ns = now_ns(CLOCK_MONOTONIC) + delay;
	if (rule->error) {
		slot->plan = PLAN_FAIL;
		slot->result = -rule->error;
	} else if (rule->flags & RULE_SPOIL) {
		slot->plan = PLAN_SPOIL;
	}
}

/* How long the call has still to wait, a little at a time; 0 when it has waited enough or the fault is over. */
__attribute__((used)) int next_slice(struct slot *slot)
{
	u64 now, left;

	if (!slot->until_ns)
		return 0;
	now = now_ns(CLOCK_MONOTONIC);
	if (now >= slot->until_ns)
		return 0;
	if (slot->generation != control.generation || now >= control.until_ns) {
		slot->plan = PLAN_PASS;
		return 0;
	}
	left = slot->until_ns - now;
	slot->slice[0] = 0;
	slot->slice[1] = left < NAP_NS ? left : NAP_NS;
	return 1;
}

/* One bit of what was read is another: in the reader's memory only, the file stays as it is. */
__attribute__((used)) void spoil(struct slot *slot)
{
	s64 length = (s64)slot->result;
	u64 pick, *vector = (u64 *)slot->args[1];
	char *data = (char *)slot->args[1];

	if (length <= 0)
		return;
	if (slot->nr == 19 || slot->nr == 295 || slot->nr == 327) {	/* readv, preadv, preadv2: the first part that holds anything */
		int part = 0;

		while (!vector[1] && part++ < 1024)
			vector += 2;
		data = (char *)vector[0];
		if ((u64)length > vector[1])
			length = (s64)vector[1];
	}
	if (length <= 0)
		return;
	pick = draw();
	data[pick % (u64)length] ^= (char)(1 << (pick >> 61));
}
