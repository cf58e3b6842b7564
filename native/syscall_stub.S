/* The way of one system call through the stub.
 *
 * A site's piece arrives with everything as at its `syscall` instruction, but rcx = the piece's own `syscall`, r11 = a
 * slot that it has claimed. Those two are free: the instruction overwrites both. The caller's stack is never written:
 * it may be a goroutine's with no room left, or hold a leaf function's data below its pointer. While a call sleeps or is
 * made, the stack pointer is the caller's again, so that a signal's handler runs where it would have run anyway.
 */
#include "syscall_stub.h"

	.section .text.entry, "ax"
	.globl entry
entry:
	mov %rcx, S_RESUME(%r11)
	mov %rax, S_NR(%r11)
	mov %rdi, S_ARGS+0(%r11)
	mov %rsi, S_ARGS+8(%r11)
	mov %rdx, S_ARGS+16(%r11)
	mov %r10, S_ARGS+24(%r11)
	mov %r8, S_ARGS+32(%r11)
	mov %r9, S_ARGS+40(%r11)
	mov %rbx, S_RBX(%r11)
	mov %rsp, S_RSP(%r11)
	mov %r11, %rbx
	lea SLOT_SIZE(%rbx), %rsp
	mov %rbx, %rdi
	call decide

nap:	lea SLOT_SIZE(%rbx), %rsp
	mov %rbx, %rdi
	call next_slice
	mov S_RSP(%rbx), %rsp
	test %eax, %eax
	jz go_on
	mov $35, %eax			/* nanosleep; a signal's handler runs here, and the rest is slept after it */
	lea S_SLICE(%rbx), %rdi
	xor %esi, %esi
	syscall
	jmp nap

go_on:	mov S_ARGS+0(%rbx), %rdi
	mov S_ARGS+8(%rbx), %rsi
	mov S_ARGS+16(%rbx), %rdx
	mov S_ARGS+24(%rbx), %r10
	mov S_ARGS+32(%rbx), %r8
	mov S_ARGS+40(%rbx), %r9
	mov S_NR(%rbx), %rax
	mov S_RESUME(%rbx), %rcx
	cmpl $PLAN_PASS, S_PLAN(%rbx)
	je leave
	cmpl $PLAN_FAIL, S_PLAN(%rbx)
	je failed
	syscall
	mov %rax, S_RESULT(%rbx)
	lea SLOT_SIZE(%rbx), %rsp
	mov %rbx, %rdi
	call spoil
	mov S_RSP(%rbx), %rsp
	mov S_ARGS+0(%rbx), %rdi
	mov S_ARGS+8(%rbx), %rsi
	mov S_ARGS+16(%rbx), %rdx
	mov S_ARGS+24(%rbx), %r10
	mov S_ARGS+32(%rbx), %r8
	mov S_ARGS+40(%rbx), %r9
	mov S_RESUME(%rbx), %rcx
failed:	mov S_RESULT(%rbx), %rax
	add $2, %rcx			/* past the piece's `syscall` */
leave:	mov %rbx, %r11
	mov S_RBX(%rbx), %rbx
	movq $0, S_BUSY(%r11)
	jmp *%rcx

	.section .note.GNU-stack, "", @progbits
