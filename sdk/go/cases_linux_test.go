package squallchaos_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	chaos "squall.dev/squallchaos"
)

// The cases of sdk/cases, which the Python middleware runs too; sdk/cases/README.md says what is in them.

func cases[T any](t *testing.T, each func(*testing.T, T), files ...string) {
	t.Helper()
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join("..", "cases", file))
		if err != nil {
			t.Fatal(err)
		}
		var found []json.RawMessage
		if err := json.Unmarshal(content, &found); err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			t.Fatalf("%s is empty", file)
		}
		for _, raw := range found {
			var named struct{ Name string }
			var one T
			decoder := json.NewDecoder(bytes.NewReader(raw))
			decoder.DisallowUnknownFields()
			if err := errors.Join(decoder.Decode(&one), json.Unmarshal(raw, &named)); err != nil {
				t.Fatalf("%s: %v: %s", file, err, raw)
			}
			t.Run(file+"/"+named.Name, func(t *testing.T) { each(t, one) })
		}
	}
}

// given are settings as a case has them.
type given struct {
	Enabled       bool
	Service       string
	Header        *string
	RequireHeader *bool `json:"require_header"`
	Sample        *float64
	DelayMin      int64   `json:"delay_min"`
	DelayMax      *int64  `json:"delay_max"`
	AbortStatus   int     `json:"abort_status"`
	AbortShare    float64 `json:"abort_share"`
	Seed          uint64
	Until, Edge   string
	Secret        string
	Method, Path  string
	Driven        bool
	Name          string
}

func (g given) settings() (chaos.Settings, error) {
	s := chaos.DefaultSettings(g.Service)
	s.Enabled, s.Driven, s.Name = g.Enabled, g.Driven, g.Name
	s.AbortStatus, s.AbortShare, s.Seed, s.Secret = g.AbortStatus, g.AbortShare, g.Seed, g.Secret
	s.Method, s.Path, s.DelayMin = g.Method, g.Path, time.Duration(g.DelayMin)
	if g.Header != nil {
		s.Header = *g.Header
	}
	if g.RequireHeader != nil {
		s.RequireHeader = *g.RequireHeader
	}
	if g.Sample != nil {
		s.Sample = *g.Sample
	}
	if g.DelayMax != nil {
		s.DelayMax = time.Duration(*g.DelayMax)
	}
	if g.Edge != "" {
		s.Edge = chaos.Edge(g.Edge)
	}
	if g.Until == "" {
		return s, nil
	}
	var err error
	s.Until, err = time.Parse(time.RFC3339, g.Until)
	return s, err
}

func TestCasesOfDraws(t *testing.T) {
	cases(t, func(t *testing.T, one struct {
		Name          string
		Seed, Request uint64
		Draws         [3]uint64
	}) {
		for k, want := range one.Draws {
			if got := uint64(chaos.Draw(one.Seed, one.Request, uint64(k)) * (1 << 53)); got != want {
				t.Errorf("draw %d: %d, not %d", k, got, want)
			}
		}
	}, "draws.json")
}

func TestCasesOfSettings(t *testing.T) {
	t.Setenv("SQUALL_CHAOS_DIR", t.TempDir())
	cases(t, func(t *testing.T, one struct {
		Name     string
		Settings given
		Problems []string
	}) {
		settings, err := one.Settings.settings()
		var found []string
		if err != nil {
			found = []string{"until"} // Go has a type for it: what is no time does not come so far
		} else if made, err := chaos.New(settings); err == nil {
			made.Close()
		} else {
			found = problems(t, err)
		}
		if strings.Join(found, " ") != strings.Join(one.Problems, " ") {
			t.Errorf("%v, not %v", found, one.Problems)
		}
	}, "settings.json")
}

func problems(t *testing.T, err error) []string {
	t.Helper()
	var wrong *chaos.SettingsError
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	var found []string
	for _, each := range wrong.Problems {
		found = append(found, each.Setting)
	}
	sort.Strings(found)
	return found
}

func TestCasesOfEnvironments(t *testing.T) {
	cases(t, func(t *testing.T, one struct {
		Name        string
		Environment map[string]string
		Settings    *given
		Problems    []string
	}) {
		var variables []string
		for name, value := range one.Environment {
			variables = append(variables, name+"="+value)
		}
		found, err := chaos.FromVariables(chaos.DefaultSettings(""), variables)
		if one.Settings == nil {
			if got := problems(t, err); strings.Join(got, " ") != strings.Join(one.Problems, " ") {
				t.Errorf("%v, not %v", got, one.Problems)
			}
			return
		}
		want, wrong := one.Settings.settings()
		if err := errors.Join(err, wrong); err != nil || !reflect.DeepEqual(found, want) {
			t.Errorf("%+v, not %+v (%v)", found, want, err)
		}
	}, "environment.json")
}

// decided is a case of one middleware and what comes to it.
type decided struct {
	Name        string
	Now         int64
	Settings    given
	Environment map[string]string
	Control     json.RawMessage
	ControlText *string         `json:"control_text"`
	ControlPad  int             `json:"control_pad"`
	Lease       json.RawMessage `json:"lease_ms"`
	LeaseBytes  *string         `json:"lease_bytes"`
	Halt        bool
	Requests    []asked
	Refused     uint64
	Live        *struct {
		Requests, Delayed, Aborted, Refused uint64
		Delay                               uint64 `json:"delay_ns"`
	}
}

type asked struct {
	Method, Path string
	Headers      map[string]any
	At           int64
	Repeat       int
	Expect       struct {
		Outcome  string
		Delay    int64 `json:"delay_ns"`
		Status   int
		Fault    string
		Stripped bool
		Body     string
		Answer   map[string]string `json:"headers"`
		Totals   map[string]int64
	}
}

func (d decided) target() string {
	if d.Settings.Name != "" {
		return d.Settings.Name
	}
	return d.Settings.Service
}

// arrange puts into the folder what is in it when the middleware is made.
func (d decided) arrange(t *testing.T, folder string) {
	s := squall{t, folder, d.target()}
	if d.Halt {
		s.put("HALT", nil)
	}
	text := string(d.Control)
	if d.ControlText != nil {
		text = *d.ControlText
	} else if d.Control == nil {
		return
	}
	if short := d.ControlPad - len(text); short > 0 {
		text += strings.Repeat(" ", short)
	}
	s.put(s.name+".json", []byte(text))
	ahead := 9000.0
	if d.LeaseBytes != nil {
		content, err := hex.DecodeString(*d.LeaseBytes)
		if err != nil {
			t.Fatal(err)
		}
		s.put(s.name+".lease", content)
	} else if string(d.Lease) != "null" {
		if d.Lease != nil {
			_ = json.Unmarshal(d.Lease, &ahead)
		}
		s.lease(time.Duration(ahead * float64(time.Millisecond)))
	}
}

// line is what the log says of an injection.
type line struct {
	Reason string
	Delay  float64 `json:"delay_ms"`
	Status int
	Fault  string
}

func TestCasesOfDecisions(t *testing.T) {
	cases(t, func(t *testing.T, one decided) {
		folder := t.TempDir()
		t.Setenv("SQUALL_CHAOS_DIR", folder)
		for name, value := range one.Environment {
			t.Setenv(name, value)
		}
		one.arrange(t, folder)
		now := time.Unix(one.Now, 0)
		wall := now
		settings, err := one.Settings.settings()
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		settings.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		made, err := chaos.NewAt(settings, func() time.Time { return wall })
		if err != nil {
			t.Fatal(err)
		}
		defer made.Close()
		for number, each := range one.Requests {
			wall = now.Add(time.Duration(each.At))
			if wrong := each.sent(made, settings.Header, &log); wrong != "" {
				t.Errorf("request %d: %s", number, wrong)
			}
		}
		if made.Refused() != one.Refused {
			t.Errorf("%d were refused, not %d", made.Refused(), one.Refused)
		}
		one.compareLive(t, folder)
	}, "decision.json", "header.json", "driven.json", "control-files.json")
}

// sent sends a request of a caller who has left, so that no delay is waited for, and says what is not as it should be.
func (a asked) sent(made *chaos.Chaos, header string, log *bytes.Buffer) string {
	gone, leave := context.WithCancel(context.Background())
	leave()
	totals := map[string]int64{"left alone": 0, "delayed": 0, "aborted": 0, "delay_ns": 0}
	var last line
	stripped, handled := false, 0
	handler := made.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handled++
		stripped = len(a.values()[http.CanonicalHeaderKey(header)]) > 0 && len(r.Header.Values(header)) == 0
	}))
	recorder := httptest.NewRecorder()
	for i := 0; i < max(a.Repeat, 1); i++ {
		recorder, last = httptest.NewRecorder(), line{}
		log.Reset()
		ask := (&http.Request{Method: a.Method, URL: &url.URL{Path: a.Path}, Header: a.values()}).WithContext(gone)
		handler.ServeHTTP(recorder, ask)
		_ = json.Unmarshal(log.Bytes(), &last)
		switch last.Reason {
		case "abort":
			totals["aborted"]++
		case "delay":
			totals["delayed"]++
			totals["delay_ns"] += int64(math.Round(last.Delay * 1e6))
		default:
			totals["left alone"]++
		}
	}
	if int64(handled) != totals["left alone"]+totals["delayed"] {
		return fmt.Sprintf("%d were handled of %v", handled, totals)
	}
	if a.Expect.Totals != nil {
		if !reflect.DeepEqual(totals, a.Expect.Totals) {
			return fmt.Sprintf("%v, not %v", totals, a.Expect.Totals)
		}
		return ""
	}
	if totals[a.Expect.Outcome] != int64(max(a.Repeat, 1)) || totals["delay_ns"] != a.Expect.Delay*int64(max(a.Repeat, 1)) ||
		last.Status != a.Expect.Status || last.Fault != a.Expect.Fault || stripped != a.Expect.Stripped {
		return fmt.Sprintf("%v, %+v, stripped %t, not %+v", totals, last, stripped, a.Expect)
	}
	if a.Expect.Status != 0 && (recorder.Code != a.Expect.Status || a.Expect.Body != "" && recorder.Body.String() != a.Expect.Body) {
		return fmt.Sprintf("%d %q", recorder.Code, recorder.Body)
	}
	for name, value := range a.Expect.Answer {
		if recorder.Header().Get(name) != value {
			return fmt.Sprintf("the answer's %s is %q", name, recorder.Header().Get(name))
		}
	}
	return ""
}

func (a asked) values() http.Header {
	found := http.Header{}
	for name, value := range a.Headers {
		if text, isOne := value.(string); isOne {
			found.Add(name, text)
			continue
		}
		for _, each := range value.([]any) {
			found.Add(name, each.(string))
		}
	}
	return found
}

func (d decided) compareLive(t *testing.T, folder string) {
	content, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("%s.%d.live", d.target(), os.Getpid())))
	if d.Live == nil {
		if err == nil {
			t.Error("it is registered")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want := [...]uint64{d.Live.Requests, d.Live.Delayed, d.Live.Aborted, d.Live.Refused, d.Live.Delay}
	for i, value := range want {
		if got := binary.LittleEndian.Uint64(content[24+8*i:]); got != value {
			t.Errorf("count %d is %d, not %d", i, got, value)
		}
	}
}
