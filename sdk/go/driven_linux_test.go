package squallchaos_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	chaos "squall.dev/squallchaos"
)

// squall does what Squall does in the folder.
type squall struct {
	testing.TB
	folder, name string
}

func driving(t testing.TB) squall {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("SQUALL_CHAOS_DIR", folder)
	return squall{t, folder, "orders"}
}

// middleware is a Chaos that does nothing of its own accord.
func (s squall) middleware(change func(*chaos.Settings)) *chaos.Chaos {
	s.Helper()
	settings := chaos.DefaultSettings("orders")
	settings.Name, settings.Driven, settings.Logger = s.name, true, silent
	change(&settings)
	one, err := chaos.New(settings)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(one.Close)
	return one
}

func (s squall) put(name string, content []byte) {
	s.Helper()
	aside := filepath.Join(s.folder, ".aside")
	if err := os.WriteFile(aside, content, 0o600); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(aside, filepath.Join(s.folder, name)); err != nil {
		s.Fatal(err)
	}
}

func (s squall) order(faults ...string) {
	s.Helper()
	s.put(s.name+".json", []byte(control(faults...)))
}

func (s squall) lease(ahead time.Duration) {
	s.Helper()
	s.put(s.name+".lease", binary.LittleEndian.AppendUint64(nil, uint64(chaos.BootNow()+int64(ahead))))
}

// until waits for what shall become so; requests and time pass meanwhile.
func (s squall) until(what string, condition func() bool) {
	s.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not within 10 s: %s", what)
		}
	}
}

// live is what the middleware says of itself.
func (s squall) live() (counts [6]uint64) {
	s.Helper()
	content, err := os.ReadFile(filepath.Join(s.folder, fmt.Sprintf("%s.%d.live", s.name, os.Getpid())))
	if err != nil {
		s.Fatal(err)
	}
	if len(content) != 128 || string(content[:8]) != "SQCHAOS1" || binary.LittleEndian.Uint64(content[8:]) != uint64(os.Getpid()) {
		s.Fatalf("% x", content)
	}
	if label := "go " + chaos.Version; string(content[96:]) != label+strings.Repeat("\x00", 32-len(label)) {
		s.Errorf("%q", content[96:])
	}
	for i := range counts {
		counts[i] = binary.LittleEndian.Uint64(content[24+8*i:])
	}
	return counts
}

// fault is one of a control file, for every request; pairs are fields that are otherwise.
func fault(id string, pairs ...string) string {
	text := with(`"id":"f"`, fmt.Sprintf(`"id":%q`, id))
	for i := 0; i < len(pairs); i += 2 {
		begin := strings.Index(text, `"`+pairs[i]+`":`)
		end := begin + strings.IndexAny(text[begin:], ",}")
		if text[end-1] == '{' { // an empty object
			end++
		}
		text = text[:begin] + fmt.Sprintf("%q:%s", pairs[i], pairs[i+1]) + text[end:]
	}
	return text
}

func delayOf(id string, d time.Duration) string {
	return fault(id, "delay_min_ns", fmt.Sprint(int64(d)), "delay_max_ns", fmt.Sprint(int64(d)))
}

func abortOf(id string, status int) string {
	return fault(id, "abort_status", fmt.Sprint(status), "abort_body", `"broken"`, "abort_headers", `{"Retry-After":"7"}`)
}

func TestAnExperimentDrivesIt(t *testing.T) {
	s := driving(t)
	one := s.middleware(func(*chaos.Settings) {})
	reason := func() chaos.Reason { return one.Decide(request()).Reason }
	if reason() != "" {
		t.Fatal("hit before anything was said")
	}
	s.order(delayOf("f1", time.Millisecond))
	s.lease(9 * time.Second)
	s.until("the delay is on", func() bool { return reason() == chaos.Delay })
	before := s.live()
	verdict := one.Decide(request())
	if verdict.Delay != time.Millisecond || verdict.Fault() != "f1" {
		t.Errorf("%+v", verdict)
	}
	after := s.live()
	if after[0] != before[0]+1 || after[1] != before[1]+1 || after[4] != before[4]+1_000_000 || after[5] < before[5] {
		t.Errorf("counts went from %v to %v", before, after)
	}

	s.order(abortOf("f2", 418))
	server := served(t, one.Middleware(http.NotFoundHandler()))
	s.until("the abort is on", func() bool { return reason() == chaos.Abort })
	answer, body := get(t, server.URL)
	if answer.StatusCode != 418 || body != "broken" || answer.Header.Get("Retry-After") != "7" {
		t.Errorf("%d %q %v", answer.StatusCode, body, answer.Header)
	}
	if counts := s.live(); counts[2] == 0 {
		t.Errorf("no abort in %v", counts)
	}

	s.order()
	s.until("nothing is on", func() bool { return reason() == "" })
}

func TestOnlyALeaseOfTheNearFutureHolds(t *testing.T) {
	s := driving(t)
	s.order(delayOf("f", 0))
	one := s.middleware(func(*chaos.Settings) {})
	is := func(want chaos.Reason) func() bool {
		return func() bool { return one.Decide(request()).Reason == want }
	}
	s.lease(5 * time.Second)
	s.until("5 s ahead", is(chaos.Delay))
	s.lease(time.Minute)
	s.until("a minute ahead", is(""))
	s.lease(300 * time.Millisecond)
	s.until("0.3 s ahead", is(chaos.Delay))
	s.until("lapsed", is(""))
	s.put(s.name+".lease", []byte("soon"))
	if !is("")() {
		t.Error("a lease of four bytes")
	}
}

func TestHaltStopsEverything(t *testing.T) {
	s := driving(t)
	s.order(delayOf("f", 0))
	s.lease(9 * time.Second)
	driven := s.middleware(func(*chaos.Settings) {})
	own := s.middleware(func(settings *chaos.Settings) {
		settings.Driven, settings.Enabled, settings.Until = false, true, time.Now().Add(time.Hour)
		settings.Sample, settings.RequireHeader = 1, false
	})
	for _, each := range []*chaos.Chaos{driven, own} {
		is := func(want chaos.Reason) func() bool {
			return func() bool { return each.Decide(request()).Reason == want }
		}
		s.until("on", is(chaos.Delay))
		s.put("HALT", nil)
		s.until("halted", is(""))
		_ = os.Remove(filepath.Join(s.folder, "HALT"))
		s.until("on again", is(chaos.Delay))
	}
}

func TestWhatOthersMayWriteIsNotThere(t *testing.T) {
	var log bytes.Buffer
	s := driving(t)
	one := s.middleware(func(settings *chaos.Settings) { settings.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	is := func(want chaos.Reason) func() bool {
		return func() bool { return one.Decide(request()).Reason == want }
	}
	s.order(delayOf("f", 0))
	s.lease(9 * time.Second)
	s.until("on", is(chaos.Delay))
	for _, path := range []string{"", s.name + ".json", s.name + ".lease"} {
		path := filepath.Join(s.folder, path)
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(path, was.Mode()|0o022)
		s.until("off, as "+path+" is not safe", is(""))
		_ = os.Chmod(path, was.Mode())
		s.lease(9 * time.Second)
		s.until("on again", is(chaos.Delay))
	}
	if said := log.String(); strings.Count(said, "not everybody may write") != 1 {
		t.Errorf("not said once: %s", said)
	}
	real := filepath.Join(s.folder, "elsewhere")
	_ = os.Rename(filepath.Join(s.folder, s.name+".json"), real)
	_ = os.Symlink(real, filepath.Join(s.folder, s.name+".json"))
	s.until("off, behind a link", is(""))
}

func TestAMalformedFileIsNoFaultAndIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	s := driving(t)
	one := s.middleware(func(settings *chaos.Settings) { settings.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	is := func(want chaos.Reason) func() bool {
		return func() bool { return one.Decide(request()).Reason == want }
	}
	s.order(delayOf("f", 0))
	s.lease(9 * time.Second)
	s.until("on", is(chaos.Delay))
	s.put(s.name+".json", []byte(control(with(`"seed"`, `"mood":"bad","seed"`))))
	s.until("off", is(""))
	time.Sleep(3 * chaos.LookEvery)
	is("")()
	if said := log.String(); strings.Count(said, "mood") != 1 {
		t.Errorf("not said once: %s", said)
	}
}

// A request that is held back is let go when the experiment ends or dies, well before its delay is over.
func TestAHeldRequestIsLetGo(t *testing.T) {
	for what, end := range map[string]func(squall){
		"the fault is taken back": func(s squall) { s.order() },
		"Squall died":             func(s squall) { s.lease(-time.Second) },
		"somebody halts it":       func(s squall) { s.put("HALT", nil) },
	} {
		t.Run(what, func(t *testing.T) {
			s := driving(t)
			one := s.middleware(func(*chaos.Settings) {})
			s.order(delayOf("f", time.Hour))
			s.lease(9 * time.Second)
			s.until("on", func() bool { return one.Decide(request()).Reason == chaos.Delay })
			verdict, done := one.Decide(request()), make(chan struct{})
			go func() {
				defer close(done)
				one.Inject(context.Background(), request(), verdict)
			}()
			end(s)
			select {
			case <-done:
			case <-time.After(5 * time.Second): // before the lease would lapse
				t.Error("still held")
			}
		})
	}
}

func TestTheRegistrationLastsAsLongAsTheMiddleware(t *testing.T) {
	s := driving(t)
	first, second := s.middleware(func(*chaos.Settings) {}), s.middleware(func(*chaos.Settings) {})
	path := filepath.Join(s.folder, fmt.Sprintf("%s.%d.live", s.name, os.Getpid()))
	exists := func() bool { _, err := os.Stat(path); return err == nil }
	first.Close()
	first.Close()
	if !exists() {
		t.Error("gone while a second middleware of the name is there")
	}
	_ = os.Remove(path)
	s.until("it is registered anew", func() bool { second.Decide(request()); return exists() })
	if first.Decide(request()); s.live()[0] != 0 {
		t.Error("a closed one counted")
	}
	second.Close()
	if exists() {
		t.Error("still there")
	}
}

func TestAFolderThatComesLater(t *testing.T) {
	s := driving(t)
	_ = os.Remove(s.folder)
	one := s.middleware(func(*chaos.Settings) {})
	if one.Decide(request()).Reason != "" {
		t.Error("hit")
	}
	_ = os.Mkdir(s.folder, 0o700)
	s.order(delayOf("f", 0))
	s.lease(9 * time.Second)
	s.until("on", func() bool { return one.Decide(request()).Reason == chaos.Delay })
	s.live()
}

func TestADrivenFaultComesBeforeTheServicesOwn(t *testing.T) {
	s := driving(t)
	one := s.middleware(func(settings *chaos.Settings) {
		settings.Enabled, settings.Until = true, time.Now().Add(time.Hour)
		settings.Sample, settings.RequireHeader, settings.AbortStatus, settings.AbortShare = 1, false, 503, 1
	})
	if verdict := one.Decide(request()); verdict.Reason != chaos.Abort || verdict.Fault() != "" {
		t.Errorf("%+v", verdict)
	}
	s.order(fault("never", "sample", "0"), delayOf("f", 1), abortOf("too late", 500))
	s.lease(9 * time.Second)
	s.until("driven", func() bool { return one.Decide(request()).Fault() == "f" })
	s.order(fault("other", "headers", `{"X-Tenant":"test-*"}`))
	s.until("its own", func() bool { return one.Decide(request()).Reason == chaos.Abort })
	if verdict := one.Decide(request("X-Tenant", "test-7")); verdict.Fault() != "other" {
		t.Errorf("%+v", verdict)
	}
}

func TestAFaultThatIsRenewedGoesOnCounting(t *testing.T) {
	s := driving(t)
	one := s.middleware(func(*chaos.Settings) {})
	s.order(fault("f"))
	s.lease(9 * time.Second)
	seen := map[time.Duration]bool{}
	drawn := func() bool {
		verdict := one.Decide(request())
		if verdict.Reason == chaos.Delay && seen[verdict.Delay] {
			t.Fatalf("%v was drawn before", verdict.Delay)
		}
		seen[verdict.Delay] = true
		return verdict.Reason == chaos.Delay
	}
	s.until("on", drawn)
	for i := 0; i < 3; i++ {
		s.order(fault("f", "path", `"/orders/*"`), delayOf(fmt.Sprint(i), 1))
		time.Sleep(2 * chaos.LookEvery)
		for j := 0; j < 10; j++ {
			drawn()
		}
	}
}

// The race detector watches this one: requests, a changing file, and readers of the counts.
func TestManyRequestsWhileFaultsComeAndGo(t *testing.T) {
	s := driving(t)
	one := s.middleware(func(*chaos.Settings) {})
	handler := one.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	var hits, all atomic.Uint64
	var group sync.WaitGroup
	stop := make(chan struct{})
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
				all.Add(1)
				if recorder.Code == 418 {
					hits.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	for i := 0; i < 6; i++ {
		s.order(abortOf("a", 418), delayOf("d", time.Microsecond))
		s.lease(9 * time.Second)
		before := hits.Load()
		s.until("it hits", func() bool { return hits.Load() > before })
		s.order()
	}
	close(stop)
	group.Wait()
	if counts := s.live(); counts[2] != hits.Load() || counts[0] > all.Load() {
		t.Errorf("%v, but %d of %d were aborted", counts, hits.Load(), all.Load())
	}
}
