/* The memory that a patched process is given, as the stub and its owner (kernel/syscall_stub.py) both know it.
 *
 *	base		this code, then one small piece for each patched `syscall` instruction; read and execute
 *	+CONTROL	the rules, the lease and the counts; shared with children that are forked later
 *	+SLOTS		a place for each call that is being looked at, with a stack of its own: the caller's is not used
 */
#pragma once

#define CONTROL 0x10000
#define SLOTS 0x13000
#define SLOT_SIZE 0x4000
#define SLOT_COUNT 64

/* Offsets into a slot that the assembly uses. */
#define S_BUSY 0
#define S_RESUME 8
#define S_NR 16
#define S_ARGS 24
#define S_RBX 72
#define S_RSP 80
#define S_PLAN 88
#define S_RESULT 96
#define S_SLICE 104

#define PLAN_PASS 0
#define PLAN_FAIL 1
#define PLAN_SPOIL 2

#ifndef __ASSEMBLER__

typedef unsigned long u64;
typedef unsigned int u32;
typedef long s64;

#define PATHS_MOST 8
#define PATH_SIZE 256
#define BITMAP_WORDS 16

#define RULE_FILES 1		/* only regular files and block devices, or calls that name a path */
#define RULE_CHILDREN 2		/* forked children too */
#define RULE_SPOIL 4		/* let the read be done, then change a bit of what was read */

struct rule {
	u64 calls[BITMAP_WORDS];	/* a bit for each system call number below 1024 */
	u64 error;			/* 0: the call is made */
	u64 delay_ns, jitter_ns;
	u64 share;			/* of 2^32 */
	u64 times;			/* hits at most; 0: no end */
	u64 flags;
	u64 paths;			/* how many of the following are used; 0: any */
	char path[PATHS_MOST][PATH_SIZE];
};

struct control {
	u64 until_ns;		/* the lease, CLOCK_MONOTONIC */
	u64 process;		/* the chosen process as it calls itself (its innermost pid namespace) */
	u64 active;		/* which of the two rules holds; the other one may be written meanwhile */
	u64 generation;		/* changes with each rule, so that a call that waits looks again */
	u64 seed;
	u64 draws;
	u64 spent;		/* hits of this rule */
	u64 calls;		/* calls that fitted the rule */
	u64 hits;
	u64 crowded;		/* calls that went by unseen since all slots were taken */
	struct rule rules[2];
};

struct slot {
	u64 busy;
	u64 resume;		/* the `syscall` instruction in the site's piece */
	u64 nr;
	u64 args[6];
	u64 rbx, rsp;
	u64 plan;
	u64 result;
	u64 slice[2];		/* struct timespec of the next nap */
	u64 until_ns;		/* when this call has waited long enough */
	u64 generation;
	char path[2 * PATH_SIZE], link[2 * PATH_SIZE];
};

#endif
