"""The numbers of the system calls that can be chosen, on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)."""

__all__ = ["NUMBERS"]

NUMBERS = {
    "accept": 43, "accept4": 288, "access": 21, "bind": 49, "chmod": 90, "clone": 56, "clone3": 435,
    "close": 3, "connect": 42, "copy_file_range": 326, "creat": 85, "dup": 32, "dup3": 292, "epoll_pwait": 281,
    "epoll_wait": 232, "execve": 59, "faccessat": 269, "faccessat2": 439, "fallocate": 285, "fchmod": 91,
    "fdatasync": 75, "flock": 73, "fork": 57, "fstat": 5, "fstatfs": 138, "fsync": 74, "ftruncate": 77,
    "getdents64": 217, "getpeername": 52, "getrandom": 318, "getsockopt": 55, "ioctl": 16, "link": 86,
    "linkat": 265, "listen": 50, "lseek": 8, "lstat": 6, "memfd_create": 319, "mkdir": 83, "mkdirat": 258,
    "mmap": 9, "msync": 26, "nanosleep": 35, "newfstatat": 262, "open": 2, "openat": 257, "openat2": 437,
    "pipe": 22, "pipe2": 293, "poll": 7, "ppoll": 271, "pread64": 17, "preadv": 295, "preadv2": 327,
    "pselect6": 270, "pwrite64": 18, "pwritev": 296, "pwritev2": 328, "read": 0, "readlink": 89,
    "readlinkat": 267, "readv": 19, "recvfrom": 45, "recvmmsg": 299, "recvmsg": 47, "rename": 82,
    "renameat": 264, "renameat2": 316, "rmdir": 84, "select": 23, "sendfile": 40, "sendmmsg": 307,
    "sendmsg": 46, "sendto": 44, "setsockopt": 54, "shutdown": 48, "socket": 41, "socketpair": 53,
    "splice": 275, "stat": 4, "statfs": 137, "statx": 332, "symlink": 88, "symlinkat": 266,
    "sync_file_range": 277, "syncfs": 306, "truncate": 76, "unlink": 87, "unlinkat": 263, "vfork": 58,
    "write": 1, "writev": 20,
}  # fmt: skip
