package squallchaos

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"time"
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

// Settings say which requests a service hits of its own accord, and whether Squall may drive it. Start from
// [DefaultSettings]; [New] refuses what is out of range.
type Settings struct {
	// Service is the service's name in the counter and in the log.
	Service string
	// Enabled switches the service's own chaos on; it needs Until.
	Enabled bool
	// Until is when the service's own chaos ends, whatever else is set.
	Until time.Time
	// Header must be on a request for it to be hit, when RequireHeader is set.
	Header string
	// RequireHeader leaves requests without Header alone.
	RequireHeader bool
	// Sample is the share of the eligible requests that are hit, 0 to 1.
	Sample float64
	// DelayMin and DelayMax bound the delay, which is drawn evenly between them; at most DelayLongest.
	DelayMin, DelayMax time.Duration
	// AbortStatus is what an aborted request is answered with: 200 to 599, or for gRPC a code from 1 to 16; 0: none.
	AbortStatus int
	// AbortShare is the share of the hit requests that are aborted instead of delayed, 0 to 1.
	AbortShare float64
	// Seed makes the draws: the same seed hits the same requests equally hard.
	Seed uint64
	// Edge says what becomes of Header here.
	Edge Edge
	// Secret, when set, makes the header count only as signed by [Sign].
	Secret string
	// Method and Path limit what is hit; `*` stands for any characters, an empty one matches all.
	Method, Path string
	// Name is what an experiment calls this middleware: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit.
	Name string
	// Driven lets experiments on this machine drive the middleware of that Name.
	Driven bool
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

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")
)

// Validate says everything that is wrong with the settings; nil when they can be used.
func (s Settings) Validate() error {
	var wrong []error
	check := func(ok bool, format string, values ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("squallchaos: "+format, values...))
		}
	}
	check(s.Service != "", "Service is empty: name the service, as it shall stand in the counter")
	check(headerForm.MatchString(s.Header), "Header %q is not a header's name", s.Header)
	check(isShare(s.Sample), "Sample %v is not between 0 and 1", s.Sample)
	check(isShare(s.AbortShare), "AbortShare %v is not between 0 and 1", s.AbortShare)
	check(s.DelayMin >= 0 && s.DelayMin <= s.DelayMax && s.DelayMax <= DelayLongest,
		"the delay must go from DelayMin to DelayMax, within 0 and %v, not from %v to %v", DelayLongest, s.DelayMin, s.DelayMax)
	check(s.AbortStatus == 0 || s.AbortStatus >= 1 && s.AbortStatus <= 16 || isHTTPStatus(s.AbortStatus),
		"AbortStatus %d is neither an HTTP status from 200 to 599 nor a gRPC code from 1 to 16", s.AbortStatus)
	check(!s.Enabled || !s.Until.IsZero(), "Enabled needs Until: chaos that nobody ends is a fault")
	check(s.Edge == Honour || s.Edge == Strip, "Edge %q is neither %q nor %q", s.Edge, Honour, Strip)
	check(s.Name == "" || nameForm.MatchString(s.Name),
		"Name %q is not 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit", s.Name)
	check(!s.Driven || s.Name != "", "Driven needs Name: what an experiment calls this middleware")
	return errors.Join(wrong...)
}

func isShare(value float64) bool {
	return value >= 0 && value <= 1 && !math.IsNaN(value)
}

func isHTTPStatus(status int) bool {
	return status >= 200 && status <= 599
}
