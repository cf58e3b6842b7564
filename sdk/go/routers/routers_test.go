package routers_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"squall.dev/squallchaos"
	"squall.dev/squallchaos/routers"
)

const header = "X-Chaos-Enabled"

func made(t *testing.T, log io.Writer, change func(*squallchaos.Settings)) *squallchaos.Chaos {
	t.Helper()
	t.Setenv("SQUALL_CHAOS_DIR", t.TempDir())
	settings := squallchaos.DefaultSettings("orders")
	settings.Enabled, settings.Until, settings.Sample = true, time.Now().Add(time.Hour), 1
	settings.DelayMin, settings.DelayMax = 2*time.Millisecond, 2*time.Millisecond
	settings.Logger = slog.New(slog.NewJSONHandler(log, nil))
	change(&settings)
	chaos, err := squallchaos.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chaos.Close)
	return chaos
}

// mounted is each router with a route that answers 201 with the order's number.
func mounted(chaos *squallchaos.Chaos) map[string]http.Handler {
	gin.SetMode(gin.ReleaseMode)
	chiRouter, echoRouter, ginRouter := routers.Chi(chaos), routers.Echo(chaos), routers.Gin(chaos)
	chiRouter.Get("/orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, chi.URLParam(r, "id")+r.Header.Get(header))
	})
	echoRouter.GET("/orders/:id", func(c echo.Context) error {
		return c.String(http.StatusCreated, c.Param("id")+c.Request().Header.Get(header))
	})
	ginRouter.GET("/orders/:id", func(c *gin.Context) {
		c.String(http.StatusCreated, c.Param("id")+c.GetHeader(header))
	})
	return map[string]http.Handler{"chi": chiRouter, "echo": echoRouter, "gin": ginRouter}
}

func get(t *testing.T, handler http.Handler, with string) (int, string) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	ask, err := http.NewRequest(http.MethodGet, server.URL+"/orders/7", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if with != "" {
		ask.Header.Set(header, with)
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
	return answer.StatusCode, string(body)
}

func TestARouterIsDelayed(t *testing.T) {
	var log bytes.Buffer
	for name, router := range mounted(made(t, &log, func(*squallchaos.Settings) {})) {
		log.Reset()
		if status, body := get(t, router, "1"); status != http.StatusCreated || body != "71" || !bytes.Contains(log.Bytes(), []byte(`"delay_ms":2`)) {
			t.Errorf("%s: %d %q, log %s", name, status, body, &log)
		}
		log.Reset()
		if status, body := get(t, router, ""); status != http.StatusCreated || body != "7" || log.Len() != 0 {
			t.Errorf("%s, left alone: %d %q, log %s", name, status, body, &log)
		}
	}
}

func TestARoutersRequestIsAborted(t *testing.T) {
	chaos := made(t, io.Discard, func(s *squallchaos.Settings) { s.AbortStatus, s.AbortShare = 418, 1 })
	for name, router := range mounted(chaos) {
		if status, body := get(t, router, "1"); status != http.StatusTeapot || body != "" {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
}

func TestARoutersRequestIsStripped(t *testing.T) {
	for name, router := range mounted(made(t, io.Discard, func(s *squallchaos.Settings) { s.Edge = squallchaos.Strip })) {
		if status, body := get(t, router, "1"); status != http.StatusCreated || body != "7" {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
}

// The span stands in the request's own trace: below the active span, else below the one of its traceparent.
func TestAnInjectionIsASpanOfTheRequestsTrace(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	otel.SetTracerProvider(provider)
	var log bytes.Buffer
	chaos := made(t, &log, func(s *squallchaos.Settings) { s.AbortStatus, s.AbortShare, s.Seed = 503, 0.5, 2 })
	tracer := provider.Tracer("test")
	traced := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tracer.Start(r.Context(), "request")
		defer span.End()
		chaos.Middleware(http.NotFoundHandler()).ServeHTTP(w, r.WithContext(ctx))
	})
	names := map[string]int{}
	for i := 0; i < 20; i++ {
		log.Reset()
		before := len(recorder.Ended())
		get(t, traced, "1")
		ended := recorder.Ended()[before:]
		if len(ended) != 2 || ended[0].Parent().SpanID() != ended[1].SpanContext().SpanID() || ended[0].SpanContext().TraceID() != ended[1].SpanContext().TraceID() {
			t.Fatalf("%d spans", len(ended))
		}
		names[ended[0].Name()]++
		if ended[0].Name() == "delay-injected" && ended[0].EndTime().Sub(ended[0].StartTime()) < 2*time.Millisecond {
			t.Error("it ended before the delay")
		}
		var line struct {
			Trace string `json:"trace_id"`
			Span  string `json:"span_id"`
		}
		_ = json.Unmarshal(log.Bytes(), &line)
		if line.Trace != ended[1].SpanContext().TraceID().String() || line.Span != ended[1].SpanContext().SpanID().String() {
			t.Errorf("%s", &log)
		}
	}
	if names["delay-injected"] == 0 || names["abort-injected"] == 0 || len(names) != 2 {
		t.Errorf("%v", names)
	}
	ask := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	ask.Header.Set(header, "1")
	ask.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	before := len(recorder.Ended())
	chaos.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), ask)
	found := recorder.Ended()[before:]
	want := trace.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}
	if len(found) != 1 || found[0].Parent().SpanID() != want || !found[0].Parent().IsRemote() {
		t.Errorf("%v", found)
	}
	if found[0].InstrumentationScope().Name != "squall.dev/squallchaos" {
		t.Errorf("%v", found[0].InstrumentationScope())
	}
}
