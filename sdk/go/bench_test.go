package squallchaos_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	chaos "squall.dev/squallchaos"
)

// What chaos costs a request that it leaves alone: the difference to "bare". sdk/go/README.md has the figures.
func BenchmarkLeftAlone(b *testing.B) {
	handled := 0
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled++ })
	b.Run("bare", func(b *testing.B) { serve(b, handler) })
	for name, change := range map[string]func(*chaos.Settings){
		"off":             func(*chaos.Settings) {},
		"driven, idle":    func(s *chaos.Settings) { s.Driven = true },
		"on, no header":   func(s *chaos.Settings) { s.Enabled = true },
		"on, not sampled": func(s *chaos.Settings) { s.Enabled, s.RequireHeader, s.Sample = true, false, 0 },
		"strip, off":      func(s *chaos.Settings) { s.Edge = chaos.Strip },
	} {
		b.Run(name, func(b *testing.B) {
			b.Setenv("SQUALL_CHAOS_DIR", b.TempDir())
			settings := chaos.DefaultSettings("orders")
			settings.Until = time.Now().Add(time.Hour)
			change(&settings)
			one, err := chaos.New(settings)
			if err != nil {
				b.Fatal(err)
			}
			defer one.Close()
			serve(b, one.Middleware(handler))
		})
	}
}

func serve(b *testing.B, handler http.Handler) {
	b.Helper()
	ask, answer := httptest.NewRequest(http.MethodGet, "/orders/7", http.NoBody), httptest.NewRecorder()
	ask.Header.Set("Accept", "*/*")
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		handler.ServeHTTP(answer, ask)
	}
}
