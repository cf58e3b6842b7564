# What a process runs in place of its vDSO's clock functions while its clock is skewed (x86-64, System V ABI).
#
# It lies in the zero padding at the end of the vDSO image and is left there for good: a thread may be anywhere in it
# when the functions get their first bytes back. Nothing in it is changed but the data below, from outside. It touches
# no memory but the stack, the caller's and its own data, and keeps every register that a callee must keep.
#
# The data has two slots. A writer fills the one that is not in use and then counts `sequence` up, one byte in one write;
# a reader takes the slot that the low bit names and takes it again when `sequence` has changed meanwhile. A write that
# is torn is so never seen, and readers never wait.
#
# The skew is a lease: once CLOCK_MONOTONIC_COARSE has reached a slot's `lease`, the clocks are true. All zeros, as it
# is put there, is a lease that is over.

.intel_syntax noprefix
.text

.set CLOCK_REALTIME_COARSE, 5
.set CLOCK_MONOTONIC_COARSE, 6
.set CLOCK_TAI, 11
.set SYS_gettimeofday, 96
.set NS, 1000000000
.set NS_MAGIC, 0x112E0BE826D694B3   # 2^90 / NS, rounded up: the high half of a product with it, >> 26, is a division by NS

.set LEASE, 0       # CLOCK_MONOTONIC in ns at which the skew ends
.set CLOCKS, 8      # bit n: clock n is skewed
.set SHIFT, 16      # ns that are added
.set BASE, 24       # the true wall clock in ns when the drift began
.set TAI_BASE, 32   # the same moment on CLOCK_TAI
.set RATE, 40       # the drift: ns for each 2^48 ns since then, signed
.set SLOT_SIZE, 48

    .ascii "SqClock1"
    .fill 16, 1, 0  # the token of who put it there
sequence:
    .byte 0
    .byte 0         # 1 while whoever patches has the process stopped
    .balign 8, 0
slots:
    .fill 2 * SLOT_SIZE, 1, 0
    .balign 64, 0

# int clock_gettime(edi: clock, rsi: struct timespec *)

clock_gettime:
    cmp edi, 31                 # a clock of a process or a device: never skewed
    ja original
    push rdi
    push rsi
    sub rsp, 24                 # a timespec, and the alignment that a callee expects
    call original
    test eax, eax
    jne 9f

    mov edi, CLOCK_MONOTONIC_COARSE
    mov rsi, rsp
    call original
    test eax, eax
    jne 8f
    imul rax, [rsp], NS
    add rax, [rsp + 8]          # rax: now, for the lease

1:  movzx r8d, byte ptr [rip + sequence]
    mov ecx, r8d
    and ecx, 1
    imul ecx, ecx, SLOT_SIZE
    lea r9, [rip + slots]
    add r9, rcx
    mov r10, [r9 + LEASE]
    mov r11, [r9 + CLOCKS]
    mov rdi, [r9 + SHIFT]
    mov rdx, [r9 + RATE]
    mov rcx, [r9 + BASE]
    mov rsi, [r9 + TAI_BASE]
    cmp r8b, byte ptr [rip + sequence]
    jne 1b

    cmp rax, r10
    jge 8f
    mov r8d, [rsp + 32]         # the clock
    bt r11, r8
    jnc 8f
    cmp r8d, CLOCK_TAI
    cmove rcx, rsi

    mov r9, [rsp + 24]          # the caller's timespec
    imul rax, [r9], NS
    add rax, [r9 + 8]           # rax: the true time
    add rdi, rax                # rdi: that and the shift
    sub rax, rcx
    imul rdx                    # rdx:rax: what has passed, times the drift
    shrd rax, rdx, 48
    add rax, rdi                # rax: the skewed time in ns

    mov rcx, rax
    movabs rdx, NS_MAGIC
    imul rdx
    sar rdx, 26                 # seconds, rounded down (one too few for whole negative ones)
    imul rax, rdx, NS
    sub rcx, rax
    cmp rcx, NS
    jb 2f
    sub rcx, NS
    inc rdx
2:  mov [r9], rdx
    mov [r9 + 8], rcx
8:  xor eax, eax
9:  add rsp, 40
    ret

# int gettimeofday(rdi: struct timeval *, rsi: struct timezone *)
    .balign 16

gettimeofday:
    test rsi, rsi               # the time zone is the kernel's own to give
    je 1f
    mov rdx, rdi
    xor edi, edi
    mov eax, SYS_gettimeofday
    syscall
    test eax, eax
    jne 3f
    mov rdi, rdx
1:  test rdi, rdi
    je 2f
    push rdi
    sub rsp, 16
    xor edi, edi                # CLOCK_REALTIME
    mov rsi, rsp
    call clock_gettime
    pop r8
    pop rax
    pop rdi
    xor edx, edx
    mov ecx, 1000
    div ecx
    mov [rdi], r8
    mov [rdi + 8], rax
2:  xor eax, eax
3:  ret

# time_t time(rdi: time_t *)
    .balign 16

time:
    push rdi
    sub rsp, 16
    mov edi, CLOCK_REALTIME_COARSE
    mov rsi, rsp
    call clock_gettime
    pop rax
    pop rdx
    pop rdi
    test rdi, rdi
    je 1f
    mov [rdi], rax
1:  ret

# The clock_gettime that was there: its first instructions and a jump to the rest, or the system call. Filled in by who
# puts this there, for it depends on the image.
    .balign 16

original:
    .fill 32, 1, 0x90

end:
