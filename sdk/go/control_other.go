//go:build !linux

package squallchaos

import (
	"errors"
	"time"
)

// Elsewhere than on Linux a service's own settings work, and SQUALL_CHAOS=off; Squall drives middleware on Linux only.

type identity struct{}

var errNotLinux = errors.New("Squall drives middleware on Linux only")

var started = time.Now()

func bootNow() int64 { return int64(time.Since(started)) }

func folderIsSafe(string) (problem string, there bool) { return "", false }

func identify(string) (identity, error) { return identity{}, errNotLinux }

func readSafely(string, int64) ([]byte, identity, error) { return nil, identity{}, errNotLinux }

func readLease(string) (int64, error) { return 0, errNotLinux }

type registration struct{}

func newRegistration(string, string) *registration { return &registration{} }

func (*registration) ensure() error { return errNotLinux }

func (*registration) withdraw() {}

func (*registration) note(bool, bool, Verdict) {}
