package squallchaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"
)

const (
	clockBoottime = 7 // <linux/time.h>
	allMayWrite   = 0o002
	groupMayWrite = 0o020
	leaseBytes    = 8
)

var errUnsafe = errors.New("it belongs to somebody else, others may write it, or it is not a file")

// identity tells a file from the one that was at its path before.
type identity struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
	modified      syscall.Timespec
}

// bootNow is CLOCK_BOOTTIME in ns, which all processes of the machine share and which goes on in a suspend.
func bootNow() int64 {
	var now syscall.Timespec
	_, _, failed := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&now)), 0)
	if failed != 0 {
		return 1<<63 - 1 // whatever was leased has lapsed
	}
	return now.Nano()
}

// folderIsSafe says whether a folder is there, and what keeps it from being trusted.
func folderIsSafe(path string) (problem string, there bool) {
	var found syscall.Stat_t
	if err := syscall.Stat(path, &found); err != nil {
		return "", false
	}
	if found.Mode&syscall.S_IFMT != syscall.S_IFDIR || !isOurs(&found) || found.Mode&allMayWrite != 0 {
		return fmt.Sprintf("%s must be a folder of root's or of user %d's that not everybody may write to", path, os.Geteuid()), true
	}
	return "", true
}

func isOurs(found *syscall.Stat_t) bool {
	return found.Uid == 0 || int(found.Uid) == os.Geteuid()
}

func identityOf(found *syscall.Stat_t) (identity, error) {
	if found.Mode&syscall.S_IFMT != syscall.S_IFREG || !isOurs(found) || found.Mode&(allMayWrite|groupMayWrite) != 0 {
		return identity{}, errUnsafe
	}
	return identity{uint64(found.Dev), found.Ino, found.Size, found.Ctim, found.Mtim}, nil //nolint:unconvert // differs by processor
}

// identify is the identity of a trustworthy file.
func identify(path string) (identity, error) {
	var found syscall.Stat_t
	if err := syscall.Lstat(path, &found); err != nil {
		return identity{}, err
	}
	return identityOf(&found)
}

// readSafely reads at most so many bytes of a trustworthy file.
func readSafely(path string, most int64) ([]byte, identity, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, identity{}, err
	}
	defer file.Close()
	var found syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &found); err != nil {
		return nil, identity{}, err
	}
	which, err := identityOf(&found)
	if err != nil {
		return nil, identity{}, err
	}
	content, err := io.ReadAll(io.LimitReader(file, most))
	return content, which, err
}

func readLease(path string) (int64, error) {
	content, _, err := readSafely(path, leaseBytes+1)
	if err != nil {
		return 0, err
	}
	if len(content) != leaseBytes {
		return 0, fmt.Errorf("%s has not %d bytes", path, leaseBytes)
	}
	return int64(binary.LittleEndian.Uint64(content)), nil
}
