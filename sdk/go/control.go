package squallchaos

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lookEvery     = 20 * time.Millisecond
	registerEvery = time.Second
	leaseLongest  = 10 * time.Second
	defaultFolder = "/run/squall/chaos"
	haltFile      = "HALT"
)

// A control is what comes from outside the process: a HALT, and the faults that Squall drives at a name. It is
// read when requests arrive, so a service without any pays nothing. All middleware of a process that share folder and name
// share one, and with it a registration.
type control struct {
	folder, name string // name is "" where only a HALT matters
	started      time.Time
	looked       atomic.Int64 // when, in ns since started
	state        atomic.Pointer[state]
	live         *registration // nil without a name
	users        int           // under controls.Mutex

	looking    sync.Mutex // the rest is its holder's
	log        *slog.Logger
	said       string
	read       identity
	faults     []*source
	registered time.Time // last attempt
}

// state is what the last look found.
type state struct {
	off    bool
	faults []*source
	lease  int64 // until when they hold, in ns of the boot clock
}

// driving are the faults that are on now.
func (s *state) driving() []*source {
	if len(s.faults) == 0 || bootNow() >= s.lease {
		return nil
	}
	return s.faults
}

var controls = struct {
	sync.Mutex
	known map[[2]string]*control
}{known: map[[2]string]*control{}}

// controlFor is the process's control for this name in today's folder; release it.
func controlFor(name string, log *slog.Logger) *control {
	folder := os.Getenv(folderVariable)
	if folder == "" {
		folder = defaultFolder
	}
	controls.Lock()
	defer controls.Unlock()
	key := [2]string{folder, name}
	one := controls.known[key]
	if one == nil {
		one = &control{folder: folder, name: name, started: time.Now(), log: log}
		if name != "" {
			one.live = newRegistration(folder, name)
		}
		one.look()
		controls.known[key] = one
	}
	one.users++
	return one
}

func (c *control) release() {
	controls.Lock()
	defer controls.Unlock()
	if c.users--; c.users == 0 {
		delete(controls.known, [2]string{c.folder, c.name})
		if c.live != nil {
			c.live.withdraw()
		}
	}
}

// now is what a look less than 20 ms ago found.
func (c *control) now() *state {
	at, last := int64(time.Since(c.started)), c.looked.Load()
	if at-last >= int64(lookEvery) && c.looked.CompareAndSwap(last, at) {
		c.look()
	}
	return c.state.Load()
}

func (c *control) look() {
	if !c.looking.TryLock() {
		return // the look before hangs in a slow folder; what it knew holds as long as its lease
	}
	defer c.looking.Unlock()
	found := &state{}
	defer c.state.Store(found)
	if _, err := os.Lstat(filepath.Join(c.folder, haltFile)); err == nil {
		found.off = true // whoever put it there, however unsafe the folder
	}
	if c.name == "" {
		return
	}
	c.register()
	if problem, there := folderIsSafe(c.folder); !there || problem != "" {
		c.say(problem)
		return
	}
	found.faults, found.lease = c.driven()
}

// register puts the registration where it is missing: at the start, when the folder came later, when it was wiped.
func (c *control) register() {
	if now := time.Now(); c.registered.IsZero() || now.Sub(c.registered) >= registerEvery {
		c.registered = now
		if err := os.MkdirAll(c.folder, 0o755); err != nil {
			c.say("Squall cannot see this middleware: " + err.Error())
			return
		}
		if problem, _ := folderIsSafe(c.folder); problem != "" {
			c.say(problem)
			return
		}
		if err := c.live.ensure(); err != nil {
			c.say("Squall cannot see this middleware: " + err.Error())
		}
	}
}

// driven reads lease and faults; none when anything about them is not as it must be.
func (c *control) driven() ([]*source, int64) {
	lease, err := readLease(filepath.Join(c.folder, c.name+".lease"))
	if now := bootNow(); err != nil || lease <= now || lease > now+int64(leaseLongest) {
		return nil, 0
	}
	path := filepath.Join(c.folder, c.name+".json")
	which, err := identify(path)
	if err != nil {
		return nil, 0
	}
	if which != c.read {
		content, which, err := readSafely(path, controlBytesMost+1)
		if err != nil {
			return nil, 0
		}
		faults, err := readOrders(content)
		if err != nil {
			c.say(path + ": " + err.Error())
		}
		c.read, c.faults = which, renewed(faults, c.faults)
	}
	return c.faults, lease
}

// renewed lets a fault that goes on, under its id and with its seed, go on counting.
func renewed(faults, before []*source) []*source {
	for _, each := range faults {
		for _, old := range before {
			if old.fault == each.fault && old.seed == each.seed {
				each.eligible = old.eligible
			}
		}
	}
	return faults
}

// say tells the log about a problem, once as long as it is the same.
func (c *control) say(problem string) {
	if problem != "" && problem != c.said {
		c.log.Warn("chaos cannot be driven", "name", c.name, "problem", problem)
	}
	if problem != "" {
		c.said = problem
	}
}
