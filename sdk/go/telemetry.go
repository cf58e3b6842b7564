package squallchaos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const instrumentation = "squall.dev/squallchaos"

// injections counts what was injected in this process, for each service and reason, as long as the process lives.
type injections struct {
	mutex  sync.Mutex
	counts map[injection]*atomic.Uint64
}

type injection struct {
	service string
	reason  Reason
}

var injected = injections{counts: map[injection]*atomic.Uint64{}}

func (i *injections) counter(service string, reason Reason) *atomic.Uint64 {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	which := injection{service, reason}
	if i.counts[which] == nil {
		i.counts[which] = new(atomic.Uint64)
	}
	return i.counts[which]
}

// WriteMetrics writes http_chaos_injected_total of this process in Prometheus' text format, to be put behind the metrics
// that a service writes itself.
func WriteMetrics(to io.Writer) error {
	var lines []string
	injected.mutex.Lock()
	for which, count := range injected.counts {
		lines = append(lines, fmt.Sprintf("http_chaos_injected_total{service=\"%s\",reason=\"%s\"} %d\n",
			labelEscapes.Replace(which.service), which.reason, count.Load()))
	}
	injected.mutex.Unlock()
	sort.Strings(lines)
	text := bytes.NewBufferString("# HELP http_chaos_injected_total Requests that chaos delayed or aborted.\n" +
		"# TYPE http_chaos_injected_total counter\n")
	for _, line := range lines {
		text.WriteString(line)
	}
	_, err := to.Write(text.Bytes())
	return err
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Metrics serves what [WriteMetrics] writes, for a service that has no /metrics of its own.
func Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = WriteMetrics(w) // who asked has gone
	})
}

// tell puts an injection into the request's trace and into the log; the span ends with what is returned.
func (p *plan) tell(ctx context.Context, request Request, verdict Verdict) (end func()) {
	parent := trace.SpanContextFromContext(ctx)
	if !parent.IsValid() {
		ctx = propagation.TraceContext{}.Extract(ctx, carrier{request.Headers})
		parent = trace.SpanContextFromContext(ctx)
	}
	p.log(ctx, request, verdict, parent)
	name := "delay-injected"
	if verdict.Reason == Abort {
		name = "abort-injected"
	}
	_, span := tracer(ctx).Start(ctx, name, trace.WithAttributes(p.attributes(verdict)...))
	return func() { span.End() }
}

// tracer is of the provider of the request's own span, else of the process's.
func tracer(ctx context.Context) trace.Tracer {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span.TracerProvider().Tracer(instrumentation, trace.WithInstrumentationVersion(Version))
	}
	return otel.GetTracerProvider().Tracer(instrumentation, trace.WithInstrumentationVersion(Version))
}

func (p *plan) attributes(verdict Verdict) []attribute.KeyValue {
	known := []attribute.KeyValue{
		attribute.String("chaos.service", p.Service),
		attribute.String("chaos.reason", string(verdict.Reason)),
	}
	if verdict.Reason == Abort {
		known = append(known, attribute.Int("chaos.status", verdict.Status))
	} else {
		known = append(known, attribute.Float64("chaos.delay_ms", milliseconds(verdict.Delay)))
	}
	if id := verdict.Fault(); id != "" {
		known = append(known, attribute.String("chaos.fault", id))
	}
	return known
}

func (p *plan) log(ctx context.Context, request Request, verdict Verdict, parent trace.SpanContext) {
	known := []slog.Attr{slog.String("service", p.Service), slog.String("reason", string(verdict.Reason))}
	if verdict.Reason == Abort {
		known = append(known, slog.Int("status", verdict.Status))
	} else {
		known = append(known, slog.Float64("delay_ms", milliseconds(verdict.Delay)))
	}
	known = append(known, slog.String("method", request.Method), slog.String("path", request.Path))
	if parent.IsValid() {
		known = append(known, slog.String("trace_id", parent.TraceID().String()), slog.String("span_id", parent.SpanID().String()))
	}
	if id := verdict.Fault(); id != "" {
		known = append(known, slog.String("fault", id))
	}
	p.logger.LogAttrs(ctx, slog.LevelInfo, "chaos injected", known...)
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}

// carrier lets OpenTelemetry read a request's headers.
type carrier struct{ headers Headers }

func (c carrier) Get(name string) string {
	if values := c.headers.Values(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (carrier) Set(string, string) {}

func (carrier) Keys() []string { return nil }
