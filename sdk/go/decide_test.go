package squallchaos_test

import (
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	chaos "squall.dev/squallchaos"
)

var (
	noon     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tomorrow = noon.Add(24 * time.Hour)
)

// made is a Chaos at noon, closed with the test, in a folder of the test's own.
func made(t testing.TB, change func(*chaos.Settings)) *chaos.Chaos {
	t.Helper()
	t.Setenv("SQUALL_CHAOS_DIR", t.TempDir())
	settings := chaos.DefaultSettings("orders")
	settings.Enabled, settings.Until, settings.Sample = true, tomorrow, 1
	settings.Logger = silent
	change(&settings)
	one, err := chaos.NewAt(settings, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	return one
}

func request(headers ...string) chaos.Request {
	found := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		found.Add(headers[i], headers[i+1])
	}
	return chaos.Request{Method: "GET", Path: "/orders/7", Headers: found}
}

// The first outputs of SplitMix64 for seed 1234567, as its author's reference code prints them.
func TestDrawsAreSplitMix64(t *testing.T) {
	for number, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423} {
		if got := chaos.Draw(1234567, 0, uint64(number)); got != float64(want>>11)/(1<<53) {
			t.Errorf("draw %d is %v, not %v", number, got, float64(want>>11)/(1<<53))
		}
	}
	if chaos.Draw(5, 3, 1) != chaos.Draw(5, 0, 10) {
		t.Error("request 3's draw 1 is the stream's eleventh")
	}
}

func TestTheSampleIsKept(t *testing.T) {
	one := made(t, func(s *chaos.Settings) {
		s.Sample, s.RequireHeader, s.AbortShare, s.AbortStatus = 0.25, false, 0.5, 503
	})
	found := map[chaos.Reason]int{}
	const all = 40_000
	for i := 0; i < all; i++ {
		found[one.Decide(request()).Reason]++
	}
	for reason, want := range map[chaos.Reason]float64{"": 0.75, chaos.Delay: 0.125, chaos.Abort: 0.125} {
		if share := float64(found[reason]) / all; math.Abs(share-want) > 0.01 {
			t.Errorf("%q: %v of the requests, not %v", reason, share, want)
		}
	}
}

func TestTheSameSeedHitsTheSameRequests(t *testing.T) {
	change := func(s *chaos.Settings) { s.Sample, s.RequireHeader, s.Seed = 0.5, false, 11 }
	one, other := made(t, change), made(t, change)
	different := made(t, func(s *chaos.Settings) { change(s); s.Seed = 12 })
	same := true
	for i := 0; i < 100; i++ {
		a, b, c := one.Decide(request()), other.Decide(request()), different.Decide(request())
		if a.Reason != b.Reason || a.Delay != b.Delay {
			t.Fatalf("request %d: %v and %v", i, a, b)
		}
		same = same && a.Reason == c.Reason
	}
	if same {
		t.Error("another seed drew the same")
	}
}

func TestConfigureGoesOnCounting(t *testing.T) {
	settings := chaos.DefaultSettings("orders")
	settings.Enabled, settings.Until, settings.Sample, settings.RequireHeader = true, tomorrow, 0.5, false
	straight, changed := made(t, func(s *chaos.Settings) { *s = settings }), made(t, func(s *chaos.Settings) { *s = settings })
	for i := 0; i < 60; i++ {
		if i == 20 {
			if err := changed.Configure(settings); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := straight.Decide(request()), changed.Decide(request()); a.Delay != b.Delay {
			t.Fatalf("request %d: %v and %v", i, a, b)
		}
	}
	settings.Driven = true
	if err := changed.Configure(settings); err == nil {
		t.Error("it is driven now")
	}
	settings.Driven, settings.Sample = false, 7
	if err := changed.Configure(settings); err == nil || !strings.Contains(err.Error(), "sample is 7") {
		t.Errorf("wrong settings: %v", err)
	}
}

func TestWhatIsWrongWithSettingsIsSaidAtOnce(t *testing.T) {
	_, err := chaos.New(chaos.Settings{
		Enabled: true, Header: "no header", Sample: math.NaN(), AbortShare: -1, DelayMin: 2, DelayMax: 1, AbortStatus: 99,
		Edge: "maybe", Name: "Orders", Driven: true, Secret: "short",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		"service is empty", `header is "no header"`, "sample is NaN", "abort_share is -1", "delay_min is 2ns; allowed is at most",
		"abort_status is 99", "until", `edge is "maybe"`, "secret is short",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "secret is \"short\"") {
		t.Error("a secret was told")
	}
}

func TestASignatureHoldsForFiveMinutes(t *testing.T) {
	signature := chaos.Sign("hush", noon)
	for shift, want := range map[time.Duration]bool{
		0: true, 300 * time.Second: true, -300 * time.Second: true, 301 * time.Second: false, -301 * time.Second: false,
		time.Duration(math.MaxInt64): false,
	} {
		if chaos.Signed(signature, "hush", noon.Add(shift)) != want {
			t.Errorf("after %v: not %t", shift, want)
		}
	}
	for _, value := range []string{
		"", ".", "1", "on", signature + " ", "0" + signature, "1234567890123" + signature[10:], strings.ToUpper(signature), "9999999999999999999." + strings.Repeat("0", 64),
		"-1." + strings.Repeat("0", 64), chaos.Sign("other", noon),
	} {
		if chaos.Signed(value, "hush", noon) {
			t.Errorf("%q counts", value)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, each := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "/anything", true},
		{"/orders", "/orders", true},
		{"/orders", "/orders/7", false},
		{"/orders/*", "/orders/", true},
		{"*/7", "/orders/7", true},
		{"/*/7", "/7", false},
		{"a*a", "a", false},
		{"*a*b*", "xaybz", true},
		{"a*b*c", "abcbc", true},
		{"a*bc*c", "abc", false},
		{"a?", "ab", false},
	} {
		if got := chaos.Matches(each.pattern, each.text); got != each.want {
			t.Errorf("%q against %q: %t", each.pattern, each.text, got)
		}
	}
}

func FuzzPatternsAreWhatTheyLookLike(f *testing.F) {
	for _, seed := range [][2]string{{"a*a", "aa"}, {"**", ""}, {"*ab*b", "abab"}, {"/orders/*", "/orders/1\n"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if pattern == "" || !isPlain(pattern) || !isPlain(text) {
			t.Skip()
		}
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want := regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(text)
		if got := chaos.Matches(pattern, text); got != want {
			t.Errorf("%q against %q: %t", pattern, text, got)
		}
	})
}

func isPlain(text string) bool {
	for _, each := range []byte(text) {
		if each >= 0x80 {
			return false // a regular expression takes runes, not bytes
		}
	}
	return true
}
