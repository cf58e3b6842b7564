# What a Go method runs first while it may panic (x86-64, Go's internal ABI from 1.17 on): its receiver, in rax, is made
# nil for the calls that are drawn; then come the first instructions of the method and a jump to the rest of it, which
# are put behind this code by whoever installs it.
#
# It lies in the unused end of the last page of the program's code and is left there: a thread may be in it when the
# method gets its own first bytes back. Its data lies in the unused end of the last page of the program's variables.
#
# It is a lease: once the time stamp counter has reached `until`, every call passes. r12 and r13 are scratch where a
# function begins, as the flags are; rdx may be the closure, and is kept like all else. A Go function may use some
# hundreds of bytes below the stack pointer before it asks for more.

.intel_syntax noprefix
.text

.set UNTIL, 8       # time stamp at which the lease ends
.set SHARE, 16      # of 2^32: how many of the calls panic
.set LEFT, 24       # how many may still panic
.set DRAWS, 32      # splitmix64's state, as in bpf/squall.h
.set CALLS, 40
.set PANICS, 48

    movabs r12, 0x1122334455667788  # the data's address is written here
    test rax, rax                   # nil already: it began anew after its stack had grown, or was called so
    jz pass
    push rcx
    push rdx
    push rax
    rdtsc
    shl rdx, 32
    or rdx, rax
    cmp rdx, [r12 + UNTIL]
    jae out
    lock inc qword ptr [r12 + CALLS]

    movabs rcx, 0x9e3779b97f4a7c15
    mov rax, rcx
    lock xadd [r12 + DRAWS], rax
    add rax, rcx
    mov rcx, rax
    shr rcx, 30
    xor rax, rcx
    movabs rcx, 0xbf58476d1ce4e5b9
    imul rax, rcx
    mov rcx, rax
    shr rcx, 27
    xor rax, rcx
    movabs rcx, 0x94d049bb133111eb
    imul rax, rcx
    mov rcx, rax
    shr rcx, 31
    xor rax, rcx
    shr rax, 32
    cmp rax, [r12 + SHARE]
    jae out

    mov rcx, -1
    lock xadd [r12 + LEFT], rcx
    test rcx, rcx
    jle none_left
    lock inc qword ptr [r12 + PANICS]
    pop rax
    xor eax, eax
    pop rdx
    pop rcx
    jmp pass

none_left:
    lock inc qword ptr [r12 + LEFT]
out:
    pop rax
    pop rdx
    pop rcx
pass:
