package squallchaos

import (
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Edge says what becomes of the header at this service.
type Edge string

const (
	// Honour lets the header count, and passes it on.
	Honour Edge = "honour"
	// Strip takes the header off every request: what comes from outside switches nothing on, here and behind.
	Strip Edge = "strip"
)

// DelayLongest is the longest delay that can be set.
const DelayLongest = time.Hour

const (
	secretLettersLeast = 16
	codeMost           = 16 // of gRPC
)

// Settings say which requests a service hits of its own accord, and whether Squall may drive it. Start from
// [DefaultSettings]; [New] refuses what is out of range.
type Settings struct {
	// Service is the service's name in the counter and in the log.
	Service string
	// Enabled switches the service's own chaos on; it needs Until. What an experiment drives does not depend on it.
	Enabled bool
	// Until is when the service's own chaos ends, whatever else is set; a clock that is put back begins nothing anew.
	Until time.Time
	// Header must be on a request for it to be hit, where RequireHeader is set.
	Header string
	// RequireHeader leaves requests without Header alone.
	RequireHeader bool
	// Sample is the share of the eligible requests that are hit, 0 to 1.
	Sample float64
	// DelayMin and DelayMax bound the delay, which is drawn evenly between them; at most DelayLongest.
	DelayMin, DelayMax time.Duration
	// AbortStatus is what an aborted request is answered with: 200 to 599, or for gRPC a code from 1 to 16; 0: none.
	AbortStatus int
	// AbortShare is the share of the hit requests that are aborted instead of delayed, 0 to 1; with AbortStatus only.
	AbortShare float64
	// Seed makes the draws: the same seed hits the same requests equally hard.
	Seed uint64
	// Edge says what becomes of Header here.
	Edge Edge
	// Secret, of 16 letters or more, makes the header count only as signed by [Sign]; empty: none.
	Secret string
	// Method (in any case) and Path limit what is hit; `*` stands for any characters, an empty one matches all.
	Method, Path string
	// Driven lets experiments drive this middleware: target `middleware: NAME`.
	Driven bool
	// Name is that NAME, 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit; empty: Service is.
	Name string
	// Logger gets a line for each injection; nil: JSON on standard error.
	Logger *slog.Logger
}

// DefaultSettings are those of a service that injects nothing: off, 1 % of the requests that carry X-Chaos-Enabled,
// delays up to 500 ms, no aborts.
func DefaultSettings(service string) Settings {
	return Settings{
		Service:       service,
		Header:        "X-Chaos-Enabled",
		RequireHeader: true,
		Sample:        0.01,
		DelayMax:      500 * time.Millisecond,
		Edge:          Honour,
	}
}

// Problem is one thing that is wrong with settings.
type Problem struct {
	// Setting is which one, as sdk/PROTOCOL.md names it ("delay_max"), or a variable of the environment.
	Setting string
	// Said is what was given, Allowed what may be.
	Said, Allowed string
}

// SettingsError is everything that is wrong with settings.
type SettingsError struct{ Problems []Problem }

func (e *SettingsError) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, each := range e.Problems {
		lines = append(lines, fmt.Sprintf("%s is %s; allowed is %s", each.Setting, each.Said, each.Allowed))
	}
	return "squallchaos: " + strings.Join(lines, "\nsquallchaos: ")
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")
)

// target is what an experiment calls the middleware.
func (s Settings) target() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Service
}

// check finds everything that is wrong; a *SettingsError, or nil. For gRPC its codes are statuses too.
func (s Settings) check(codes bool) error {
	var wrong []Problem
	need := func(right bool, setting string, said any, allowed string) {
		if !right {
			wrong = append(wrong, Problem{setting, fmt.Sprint(said), allowed})
		}
	}
	need(isShare(s.Sample), "sample", s.Sample, "0 to 1")
	need(isShare(s.AbortShare), "abort_share", s.AbortShare, "0 to 1")
	need(isDelay(s.DelayMin), "delay_min", s.DelayMin, "0 to 1h")
	need(isDelay(s.DelayMax), "delay_max", s.DelayMax, "0 to 1h")
	if isDelay(s.DelayMin) && isDelay(s.DelayMax) {
		need(s.DelayMin <= s.DelayMax, "delay_min", s.DelayMin, fmt.Sprintf("at most delay_max, %v", s.DelayMax))
	}
	if codes {
		need(s.AbortStatus >= 0 && s.AbortStatus <= codeMost || isHTTPStatus(s.AbortStatus),
			"abort_status", s.AbortStatus, "200 to 599, a code from 1 to 16, or 0: none")
	} else {
		need(s.AbortStatus == 0 || isHTTPStatus(s.AbortStatus), "abort_status", s.AbortStatus, "200 to 599, or 0: none")
	}
	need(s.AbortStatus == 0 || s.AbortShare != 0, "abort_share", s.AbortShare, "above 0, where abort_status is set")
	need(s.AbortShare == 0 || s.AbortStatus != 0, "abort_status", "0", "a status, where abort_share is above 0")
	need(!s.Enabled || !s.Until.IsZero(), "until", "not set", "the time at which chaos that is enabled ends")
	need(s.Edge == Honour || s.Edge == Strip, "edge", fmt.Sprintf("%q", s.Edge), "honour or strip")
	need(headerForm.MatchString(s.Header), "header", fmt.Sprintf("%q", s.Header), "a header's name")
	need(s.Secret == "" || utf8.RuneCountInString(s.Secret) >= secretLettersLeast,
		"secret", "short", fmt.Sprintf("%d letters or more", secretLettersLeast))
	if (s.Enabled || s.Driven) && s.Service == "" {
		need(false, "service", "empty", "the service's name, where enabled or driven is on")
	} else if s.Driven {
		need(nameForm.MatchString(s.target()), "name", fmt.Sprintf("%q", s.target()),
			"1 to 64 of a-z 0-9 . _ - beginning with a letter or digit")
	}
	if wrong == nil {
		return nil
	}
	return &SettingsError{wrong}
}

func isShare(value float64) bool {
	return value >= 0 && value <= 1 && !math.IsNaN(value)
}

func isDelay(value time.Duration) bool {
	return value >= 0 && value <= DelayLongest
}

func isHTTPStatus(status int) bool {
	return status >= 200 && status <= 599
}
