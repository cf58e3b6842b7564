package squallchaos_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chaos "squall.dev/squallchaos"
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

func served(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	ask, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		ask.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func TestADelayIsFelt(t *testing.T) {
	const delay = 120 * time.Millisecond
	one := made(t, func(s *chaos.Settings) { s.DelayMin, s.DelayMax = delay, delay })
	server := served(t, one.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Chaos-Enabled"))
	})))
	begun := time.Now()
	if _, body := get(t, server.URL, "X-Chaos-Enabled", "yes"); body != "yes" || time.Since(begun) < delay {
		t.Errorf("%q after %v", body, time.Since(begun))
	}
}

func TestAnAbortedRequestIsNotHandled(t *testing.T) {
	one := made(t, func(s *chaos.Settings) { s.AbortStatus, s.AbortShare = 503, 1 })
	server := served(t, one.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("handled") })))
	if answer, body := get(t, server.URL, "X-Chaos-Enabled", "1"); answer.StatusCode != 503 || body != "" {
		t.Errorf("%d %q", answer.StatusCode, body)
	}
}

func TestStripTakesTheHeaderOffACopy(t *testing.T) {
	one := made(t, func(s *chaos.Settings) { s.Edge, s.AbortStatus, s.AbortShare = chaos.Strip, 503, 1 })
	original := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	original.Header.Set("X-Chaos-Enabled", "1")
	recorder := httptest.NewRecorder()
	one.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if values, there := r.Header["X-Chaos-Enabled"]; there {
			t.Errorf("the handler sees %q", values)
		}
	})).ServeHTTP(recorder, original)
	if recorder.Code != http.StatusOK || original.Header.Get("X-Chaos-Enabled") != "1" {
		t.Errorf("%d, and the server's request has %v", recorder.Code, original.Header)
	}
}

func TestThePathIsTheOneThatWasAskedFor(t *testing.T) {
	one := made(t, func(s *chaos.Settings) {
		s.RequireHeader, s.AbortStatus, s.AbortShare, s.Path = false, 418, 1, "/shop/ä b/*"
	})
	server := served(t, http.StripPrefix("/shop", one.Middleware(http.NotFoundHandler())))
	for path, want := range map[string]int{
		"/shop/%C3%A4%20b/7": 418, "/shop/%C3%A4%20b/?/shop": 418, "/shop/shop/%C3%A4%20b/7": 404, "/shop/orders/7": 404,
	} {
		if answer, _ := get(t, server.URL+path); answer.StatusCode != want {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
}

func TestARequestThatEndsIsNotHeldBack(t *testing.T) {
	one := made(t, func(s *chaos.Settings) { s.RequireHeader, s.DelayMin, s.DelayMax = false, time.Hour, time.Hour })
	ctx, cancel := context.WithCancel(context.Background())
	handled := make(chan error, 1)
	go one.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { handled <- r.Context().Err() })).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody).WithContext(ctx))
	cancel()
	select {
	case err := <-handled:
		if err == nil {
			t.Error("the handler was reached while the request went on")
		}
	case <-time.After(10 * time.Second):
		t.Error("held back for 10 s")
	}
}

func TestTheEndDateEndsADelay(t *testing.T) {
	t.Setenv("SQUALL_CHAOS_DIR", t.TempDir())
	settings := chaos.DefaultSettings("orders")
	settings.Enabled, settings.Until, settings.Sample, settings.RequireHeader = true, tomorrow, 1, false
	settings.DelayMin, settings.DelayMax, settings.Logger = time.Hour, time.Hour, silent
	var now atomic.Int64
	now.Store(noon.Unix())
	one, err := chaos.NewAt(settings, func() time.Time { return time.Unix(now.Load(), 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	done := make(chan struct{})
	verdict := one.Decide(request())
	go func() {
		defer close(done)
		one.Inject(context.Background(), request(), verdict)
	}()
	now.Store(tomorrow.Unix())
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("held back for 10 s")
	}
	now.Store(noon.Unix())
	if verdict := one.Decide(request()); verdict.Reason != "" {
		t.Errorf("after the end, with the clock put back: %v", verdict)
	}
}

// What a handler can do with its ResponseWriter it can still do.
func TestTheResponseWriterIsTheServersOwn(t *testing.T) {
	one := made(t, func(s *chaos.Settings) { s.RequireHeader, s.DelayMax = false, time.Millisecond })
	handlers := map[string]http.HandlerFunc{
		"hijack": func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(connection, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			connection.Close()
		},
		"flush": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.(http.Flusher).Flush()
			<-r.Context().Done() // the client leaves once it has the head
		},
		"readfrom": func(w http.ResponseWriter, _ *http.Request) {
			if _, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("from a reader")); err != nil {
				t.Error(err)
			}
		},
		"deadline": func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
		},
	}
	server := served(t, one.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[strings.TrimPrefix(r.URL.Path, "/")](w, r)
	})))
	for path, want := range map[string]int{"hijack": 299, "readfrom": 200, "deadline": 200} {
		if answer, _ := get(t, server.URL+"/"+path); answer.StatusCode != want {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_, _ = io.WriteString(connection, "GET /flush HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = connection.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := bufio.NewReader(connection).ReadString('\n'); !strings.Contains(line, "202") {
		t.Errorf("%q %v", line, err)
	}
}

func TestHTTP2(t *testing.T) {
	one := made(t, func(s *chaos.Settings) { s.AbortStatus, s.AbortShare, s.Path = 429, 1, "/aborted" })
	server := httptest.NewUnstartedServer(one.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", r.Proto)
	})))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for path, want := range map[string]int{"/aborted": 429, "/": 200} {
		ask, _ := http.NewRequest(http.MethodPost, server.URL+path, bytes.NewReader(make([]byte, 1<<20)))
		ask.Header.Set("X-Chaos-Enabled", "1")
		answer, err := server.Client().Do(ask)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != want || answer.ProtoMajor != 2 || err != nil {
			t.Errorf("%s: %s %d %v", path, answer.Proto, answer.StatusCode, err)
		}
		if want == 200 && (len(body) != 1<<20 || answer.Trailer.Get("X-Sum") != "HTTP/2.0") {
			t.Errorf("%d bytes back, trailer %v", len(body), answer.Trailer)
		}
	}
}

func TestAnInjectionIsCountedAndLogged(t *testing.T) {
	var log bytes.Buffer
	service := fmt.Sprintf("log\"ged %d", time.Now().UnixNano()) // counts are the process's
	label := strings.ReplaceAll(service, `"`, `\"`)
	one := made(t, func(s *chaos.Settings) {
		s.Service, s.Logger = service, slog.New(slog.NewJSONHandler(&log, nil))
		s.DelayMin, s.DelayMax = 1500*time.Microsecond, 1500*time.Microsecond
	})
	handler := one.Middleware(http.NotFoundHandler())
	ask := httptest.NewRequest(http.MethodGet, "/orders/7?card=1", http.NoBody)
	ask.Header.Set("X-Chaos-Enabled", "1")
	ask.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	handler.ServeHTTP(httptest.NewRecorder(), ask)
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	delete(line, "time")
	want := map[string]any{
		"level": "INFO", "msg": "chaos injected", "service": service, "reason": "delay", "delay_ms": 1.5, "method": "GET",
		"path": "/orders/7", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
	}
	if len(line) != len(want) {
		t.Errorf("%v", line)
	}
	for name, value := range want {
		if line[name] != value {
			t.Errorf("%s: %v, not %v", name, line[name], value)
		}
	}
	recorder := httptest.NewRecorder()
	chaos.Metrics().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, part := range []string{
		`http_chaos_injected_total{service="` + label + `",reason="delay"} 1` + "\n",
		`http_chaos_injected_total{service="` + label + `",reason="abort"} 0` + "\n",
		"# TYPE http_chaos_injected_total counter\n",
	} {
		if !strings.Contains(recorder.Body.String(), part) {
			t.Errorf("%q is not in\n%s", part, recorder.Body)
		}
	}
}

func TestTheKillSwitchInTheEnvironment(t *testing.T) {
	t.Setenv("SQUALL_CHAOS", "off")
	one := made(t, func(s *chaos.Settings) { s.RequireHeader = false })
	if verdict := one.Decide(request()); verdict.Reason != "" {
		t.Errorf("%v", verdict)
	}
}
