package squallchaos

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/textproto"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Reason is what an injection does; it is the counter's label of that name.
type Reason string

const (
	// Delay holds a request back before it is handled.
	Delay Reason = "delay"
	// Abort answers a request without handling it.
	Abort Reason = "abort"
)

// checkEvery is how often a request that is held back sees whether its fault is still on: a fault that ends, or whose
// experiment dies, lets go of those that it holds.
const checkEvery = 250 * time.Millisecond

// Chaos decides about the requests of one service. It is safe for concurrent use.
type Chaos struct {
	codes    bool // whether its answers are gRPC's
	killed   bool // by SQUALL_CHAOS=off
	plan     atomic.Pointer[plan]
	eligible atomic.Uint64
	refused  atomic.Uint64
	control  *control // nil when killed
	closed   atomic.Bool
	wall     func() time.Time // the tests have their own where time matters
}

// plan is what the settings come to.
type plan struct {
	Settings
	own    *source
	logger *slog.Logger
	counts *injections // nil where nothing can be
	end    int64       // of the service's own chaos, in ns of the boot clock
	ended  atomic.Bool
}

// Headers are a request's header fields by name, in any case; http.Header is one.
type Headers interface {
	Values(name string) []string
}

// Request is what is known of a request when it is decided about.
type Request struct {
	Method, Path, Host string
	Headers            Headers
}

// Verdict is what shall become of a request: the zero Verdict leaves it alone. See [Chaos.Inject].
type Verdict struct {
	// Reason is what is injected; empty: nothing.
	Reason Reason
	// Delay is how long the request is held back.
	Delay time.Duration
	// Status is what the request is answered with: a status of HTTP, or from the service's own settings a code of gRPC.
	Status int
	// Body is the answer's body.
	Body string
	// Strip is a header that must be taken off the request, whatever else; empty: none.
	Strip string

	source *source
}

// Fault is the id of the driven fault that hits the request; empty when the service's own settings do.
func (v Verdict) Fault() string {
	if v.source == nil {
		return ""
	}
	return v.source.fault
}

// Headers calls back with each header of an aborted request's answer.
func (v Verdict) Headers(each func(name, value string)) {
	if v.source != nil {
		for _, one := range v.source.abortHeaders {
			each(one.name, one.value)
		}
	}
}

// New makes the chaos of one HTTP service; [Chaos.Close] ends it. The error is a *SettingsError that says everything that
// is wrong. With SQUALL_CHAOS=off in the environment it never hits, and no experiment sees it.
func New(settings Settings) (*Chaos, error) {
	return newChaos(settings, false, time.Now)
}

// NewForGRPC is New for a service of gRPC, where AbortStatus may be a code from 1 to 16 too.
func NewForGRPC(settings Settings) (*Chaos, error) {
	return newChaos(settings, true, time.Now)
}

func newChaos(settings Settings, codes bool, wall func() time.Time) (*Chaos, error) {
	c := &Chaos{codes: codes, killed: strings.EqualFold(os.Getenv(killVariable), "off"), wall: wall}
	if err := c.install(settings); err != nil {
		return nil, err
	}
	if !c.killed {
		name := ""
		if settings.Driven {
			name = settings.target()
		}
		c.control = controlFor(name, c.plan.Load().logger)
	}
	return c, nil
}

// Configure puts other settings in force, from the next request on; draws go on where they were. Driven and what the
// middleware is called stay as they were made: others are an error, as is whatever New refuses, and the old settings stay.
func (c *Chaos) Configure(settings Settings) error {
	old := c.plan.Load()
	if settings.Driven != old.Driven || settings.Driven && settings.target() != old.target() {
		return &SettingsError{[]Problem{{
			Setting: "driven", Said: fmt.Sprintf("%t as %q", settings.Driven, settings.target()),
			Allowed: fmt.Sprintf("%t as %q: it stays as it was made", old.Driven, old.target()),
		}}}
	}
	return c.install(settings)
}

func (c *Chaos) install(settings Settings) error {
	if err := settings.check(c.codes); err != nil {
		return err
	}
	settings.Header = textproto.CanonicalMIMEHeaderKey(settings.Header)
	logger := settings.Logger
	if logger == nil {
		logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: asTheProtocolHasIt}))
	}
	made := &plan{
		Settings: settings,
		own:      ownSource(settings, &c.eligible),
		logger:   logger,
		end:      math.MaxInt64,
	}
	if settings.Enabled || settings.Driven {
		made.counts = injectionsOf(settings.Service)
	}
	if left := settings.Until.Sub(c.wall()); settings.Enabled && left < time.Duration(math.MaxInt64-bootNow()) {
		made.end = bootNow() + int64(left)
	}
	c.plan.Store(made)
	return nil
}

// Close ends the registration with Squall; from then on requests are left alone. Closing again does nothing.
func (c *Chaos) Close() {
	if !c.closed.Swap(true) && c.control != nil {
		c.control.release()
	}
}

// Refused is how many requests carried the header, but not as the secret asks.
func (c *Chaos) Refused() uint64 {
	return c.refused.Load()
}

// Decide says what shall become of a request, and counts it as one of those that there was something to decide about.
// What it says happens by [Chaos.Inject].
func (c *Chaos) Decide(request Request) Verdict {
	var verdict Verdict
	plan := c.plan.Load()
	if (plan.Enabled || plan.Driven) && !c.killed && !c.closed.Load() {
		verdict = c.consider(plan, &request)
	}
	if plan.Edge == Strip && len(request.Headers.Values(plan.Header)) > 0 {
		verdict.Strip = plan.Header
	}
	return verdict
}

func (c *Chaos) consider(plan *plan, request *Request) Verdict {
	outside := c.control.now()
	if outside.off {
		return Verdict{}
	}
	driving := outside.driving()
	asked := asking{plan: plan, request: request}
	verdict := c.first(driving, &asked)
	if asked.refused {
		c.refused.Add(1)
		plan.counts.refused.Add(1)
	}
	if plan.Driven && (len(driving) > 0 || asked.refused) {
		byExperiment := verdict
		if verdict.Fault() == "" {
			byExperiment = Verdict{}
		}
		c.control.live.note(len(driving) > 0, asked.refused, byExperiment)
	}
	return verdict
}

// first is the verdict of the first source that hits: driven faults in their order, then the service's own settings.
func (c *Chaos) first(driving []*source, asked *asking) Verdict {
	for _, each := range driving {
		if verdict := c.by(each, asked); verdict.Reason != "" {
			return verdict
		}
	}
	if asked.plan.isOn(c.wall) {
		return c.by(asked.plan.own, asked)
	}
	return Verdict{}
}

// isOn says whether the service's own chaos is; once it has ended, it stays so (rule 3).
func (p *plan) isOn(wall func() time.Time) bool {
	if !p.Enabled || p.ended.Load() {
		return false
	}
	if wall().Before(p.Until) && bootNow() < p.end {
		return true
	}
	p.ended.Store(true)
	return false
}

func (c *Chaos) by(each *source, asked *asking) Verdict {
	if each.requireHeader && !asked.permits(each.header, c.wall) || !each.matches(asked.request) {
		return Verdict{}
	}
	return each.hit()
}

// asking is one request's header, looked at once (rules 2 and 4).
type asking struct {
	plan    *plan
	request *Request
	known   string // the header that was looked at
	permit  bool
	refused bool
}

func (a *asking) permits(header string, wall func() time.Time) bool {
	if a.plan.Edge == Strip {
		return false
	}
	if a.known == header {
		return a.permit
	}
	a.known, a.permit = header, false
	value := ""
	if values := a.request.Headers.Values(header); len(values) > 0 {
		value = strings.TrimSpace(values[0])
	}
	switch {
	case isOff(value):
	case a.plan.Secret == "":
		a.permit = true
	case signed(value, a.plan.Secret, wall()):
		a.permit = true
	default:
		a.refused = true
	}
	return a.permit
}

// Inject makes a verdict happen as far as that can be done outside the handler: it counts, tells the trace and the log,
// and holds a delayed request back until the delay is over, ctx ends, or the fault does.
func (c *Chaos) Inject(ctx context.Context, request Request, verdict Verdict) {
	if verdict.source == nil {
		return
	}
	plan := c.plan.Load()
	plan.counts.count(verdict.Reason)
	end := plan.tell(ctx, request, verdict)
	defer end()
	if verdict.Reason == Delay {
		c.hold(ctx, verdict)
	}
}

func (c *Chaos) hold(ctx context.Context, verdict Verdict) {
	over := time.Now().Add(verdict.Delay)
	timer := time.NewTimer(shorter(verdict.Delay, checkEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		left := time.Until(over)
		if left <= 0 || !c.stillOn(verdict.source) {
			return
		}
		timer.Reset(shorter(left, checkEvery))
	}
}

// stillOn says whether what holds a request back is still in force.
func (c *Chaos) stillOn(held *source) bool {
	if c.closed.Load() {
		return false
	}
	outside, plan := c.control.now(), c.plan.Load()
	if outside.off {
		return false
	}
	if held.fault == "" {
		return plan.isOn(c.wall)
	}
	for _, each := range outside.driving() {
		if each.fault == held.fault {
			return true
		}
	}
	return false
}

func shorter(one, other time.Duration) time.Duration {
	if one < other {
		return one
	}
	return other
}
