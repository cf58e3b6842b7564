package squallchaos

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	liveMagic    = "SQCHAOS1"
	liveBytes    = 128
	countsOffset = 24
	labelOffset  = 96
	namesMost    = 4096 // of a folder that are looked at for what is left over
)

// A registration is the file NAME.<pid>.live: that this process can be driven, and what was done to its requests. It is
// written and not mapped, so that nothing that happens to the file can end the service.
type registration struct {
	folder, name string

	mutex  sync.Mutex
	file   *os.File
	counts struct{ seen, delayed, aborted, refused, slept, last uint64 }
}

func newRegistration(folder, name string) *registration {
	return &registration{folder: folder, name: name}
}

func (r *registration) path() string {
	return filepath.Join(r.folder, fmt.Sprintf("%s.%d.live", r.name, os.Getpid()))
}

// ensure sees to it that the file is there and is ours.
func (r *registration) ensure() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.isThere() {
		return nil
	}
	r.close()
	r.sweep()
	content := make([]byte, liveBytes)
	copy(content, liveMagic)
	binary.LittleEndian.PutUint64(content[8:], uint64(os.Getpid()))
	binary.LittleEndian.PutUint64(content[16:], startOf("self"))
	copy(content[labelOffset:], "go "+Version)
	r.putCounts(content)
	aside := r.path() + ".new"
	_ = os.Remove(aside) // of an earlier process that had this pid
	file, err := os.OpenFile(aside, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(content, 0)
	if err == nil {
		err = file.Chmod(0o644) // whatever the umask
	}
	if err == nil {
		err = os.Rename(aside, r.path())
	}
	if err != nil {
		file.Close()
		os.Remove(aside)
		return err
	}
	r.file = file
	return nil
}

// sweep removes what processes that are gone left under this name.
func (r *registration) sweep() {
	folder, err := os.Open(r.folder)
	if err != nil {
		return
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(namesMost)
	for _, name := range names {
		middle, isOne := strings.CutPrefix(name, r.name+".")
		middle, isLive := strings.CutSuffix(middle, ".live")
		if _, err := strconv.ParseUint(middle, 10, 32); isOne && isLive && err == nil {
			path := filepath.Join(r.folder, name)
			if started, err := startIn(path); err == nil && started != startOf(middle) {
				os.Remove(path)
			}
		}
	}
}

// startIn is when the process that made a registration started.
func startIn(path string) (uint64, error) {
	content, _, err := readSafely(path, liveBytes)
	if err != nil {
		return 0, err
	}
	if len(content) != liveBytes || !bytes.HasPrefix(content, []byte(liveMagic)) {
		return 0, errUnsafe
	}
	return binary.LittleEndian.Uint64(content[16:]), nil
}

// isThere says whether the file at the path is the one that is written.
func (r *registration) isThere() bool {
	if r.file == nil {
		return false
	}
	ours, err := r.file.Stat()
	if err != nil {
		return false
	}
	found, err := os.Lstat(r.path())
	return err == nil && os.SameFile(ours, found)
}

// withdraw ends the registration.
func (r *registration) withdraw() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.isThere() {
		os.Remove(r.path())
	}
	r.close()
}

func (r *registration) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// note adds to the counts: a request that was seen while a fault was on, and what became of it.
func (r *registration) note(seen, refused bool, done Verdict) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if seen {
		r.counts.seen++
	}
	if refused {
		r.counts.refused++
	}
	switch done.Reason {
	case Delay:
		r.counts.delayed++
		r.counts.slept += uint64(done.Delay)
	case Abort:
		r.counts.aborted++
	}
	if done.Reason != "" {
		r.counts.last = uint64(bootNow())
	}
	if r.file != nil {
		content := make([]byte, labelOffset)
		r.putCounts(content)
		_, _ = r.file.WriteAt(content[countsOffset:72], countsOffset) // a full disk costs the counts, not the request
	}
}

func (r *registration) putCounts(content []byte) {
	counts := [...]uint64{
		r.counts.seen, r.counts.delayed, r.counts.aborted, r.counts.refused, r.counts.slept, r.counts.last,
	}
	for number, value := range counts {
		binary.LittleEndian.PutUint64(content[countsOffset+8*number:], value)
	}
}

// startOf is when a process started, field 22 of its stat; 0 when there is none.
func startOf(pid string) uint64 {
	content, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:])) // from field 3 on
	if len(fields) < 20 {
		return 0
	}
	started, _ := strconv.ParseUint(fields[19], 10, 64)
	return started
}
