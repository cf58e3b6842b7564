package squallchaos

import (
	"strings"
	"sync/atomic"
	"time"
)

// A source of faults: the service's own settings, or one fault that an experiment drives. It does not change, but for its
// count of eligible requests, which a renewed fault takes over.
type source struct {
	fault         string // id of a driven fault, "" for the settings
	header        string
	requireHeader bool
	sample        float64
	method, path  pattern
	headers       []wanted
	delayMin      int64 // ns
	delayMax      int64 // ns
	abortStatus   int   // 0: none
	abortShare    float64
	abortBody     string
	abortHeaders  []field
	seed          uint64
	eligible      *atomic.Uint64
}

// wanted is a header that must be there.
type wanted struct {
	name  string
	value pattern
}

// field is a header of an answer.
type field struct{ name, value string }

func ownSource(s Settings, eligible *atomic.Uint64) *source {
	return &source{
		header:        s.Header,
		requireHeader: s.RequireHeader,
		sample:        s.Sample,
		method:        newPattern(strings.ToUpper(s.Method)),
		path:          newPattern(s.Path),
		delayMin:      int64(s.DelayMin),
		delayMax:      int64(s.DelayMax),
		abortStatus:   s.AbortStatus,
		abortShare:    s.AbortShare,
		seed:          s.Seed,
		eligible:      eligible,
	}
}

// matches says whether a request is one that this source means (rule 5).
func (s *source) matches(request *Request) bool {
	if !s.path.matches(request.Path) || s.method.parts != nil && !s.method.matches(strings.ToUpper(request.Method)) {
		return false
	}
	for _, each := range s.headers {
		if !each.isOn(request) {
			return false
		}
	}
	return true
}

func (w wanted) isOn(request *Request) bool {
	if strings.EqualFold(w.name, "Host") && request.Host != "" {
		return w.value.matches(request.Host)
	}
	for _, value := range request.Headers.Values(w.name) {
		if w.value.matches(value) {
			return true
		}
	}
	return false
}

// hit draws for one more eligible request (rules 6 and 7); Reason is empty when the sample leaves it alone.
func (s *source) hit() Verdict {
	n := s.eligible.Add(1) - 1
	if draw(s.seed, n, 0) >= s.sample {
		return Verdict{}
	}
	if s.abortStatus != 0 && draw(s.seed, n, 1) < s.abortShare {
		return Verdict{Reason: Abort, Status: s.abortStatus, Body: s.abortBody, source: s}
	}
	delay := between(s.delayMin, s.delayMax, draw(s.seed, n, 2))
	return Verdict{Reason: Delay, Delay: time.Duration(delay), source: s}
}
