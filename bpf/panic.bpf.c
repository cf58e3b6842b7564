/* The receiver of a Go method made nil at its entry, so that the runtime itself raises a panic on the goroutine's stack.
 *
 * The receiver is the first word of the arguments, in rax (Go's internal ABI on x86-64, Go >= 1.17). A program on a
 * uprobe may write registers from Linux 6.18 on; an older kernel refuses to load this.
 */
#include "squall.h"

#include <asm/ptrace.h>

enum { CALLS, PANICS };

struct settings {
	__u32 share;
	__u32 limited; /* 1: only as often as there are tokens */
	__u64 next;    /* the token to be taken next */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

/* One entry for each panic that may still happen: taking one out succeeds once, whichever CPUs try. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u8);
} tokens SEC(".maps");

SEC("uprobe")
int nil_receiver(struct pt_regs *regs)
{
	struct settings *now;
	__u32 zero = 0;
	__u64 token;

	now = bpf_map_lookup_elem(&setting, &zero);
	/* nil already: the function began anew after its stack had grown, or was called so */
	if (!now || !lease_holds() || !regs->rax)
		return 0;
	count(CALLS);
	if (!drawn(now->share))
		return 0;
	if (now->limited) {
		token = now->next;
		if (bpf_map_delete_elem(&tokens, &token))
			return 0;
		now->next = token + 1;
	}
	regs->rax = 0;
	count(PANICS);
	return 0;
}
