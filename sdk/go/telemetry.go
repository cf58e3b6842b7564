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

// injections counts what was injected into a service's requests in this process, as long as the process lives.
type injections struct {
	service                   string
	delayed, aborted, refused atomic.Uint64
}

var services = struct {
	sync.Mutex
	known map[string]*injections
}{known: map[string]*injections{}}

func injectionsOf(service string) *injections {
	services.Lock()
	defer services.Unlock()
	if services.known[service] == nil {
		services.known[service] = &injections{service: service}
	}
	return services.known[service]
}

func (i *injections) count(reason Reason) {
	if reason == Abort {
		i.aborted.Add(1)
	} else {
		i.delayed.Add(1)
	}
}

// WriteMetrics writes http_chaos_injected_total and http_chaos_refused_total of this process in Prometheus' text format,
// to be put behind the metrics that a service writes itself.
func WriteMetrics(to io.Writer) error {
	services.Lock()
	names := make([]string, 0, len(services.known))
	for name := range services.known {
		names = append(names, name)
	}
	sort.Strings(names)
	var injected, refused bytes.Buffer
	for _, name := range names {
		one, label := services.known[name], labelEscapes.Replace(name)
		for _, each := range []struct {
			reason Reason
			count  uint64
		}{{Abort, one.aborted.Load()}, {Delay, one.delayed.Load()}} {
			fmt.Fprintf(&injected, "http_chaos_injected_total{service=\"%s\",reason=\"%s\"} %d\n", label, each.reason, each.count)
		}
		fmt.Fprintf(&refused, "http_chaos_refused_total{service=\"%s\"} %d\n", label, one.refused.Load())
	}
	services.Unlock()
	_, err := fmt.Fprintf(to, "# HELP http_chaos_injected_total Faults injected into requests by the chaos middleware.\n"+
		"# TYPE http_chaos_injected_total counter\n%s"+
		"# HELP http_chaos_refused_total Requests whose chaos header was not signed as it must be.\n"+
		"# TYPE http_chaos_refused_total counter\n%s", &injected, &refused)
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

// asTheProtocolHasIt writes time and level as every language's middleware does.
func asTheProtocolHasIt(_ []string, attribute slog.Attr) slog.Attr {
	switch value := attribute.Value.Any().(type) {
	case time.Time:
		attribute.Value = slog.StringValue(value.UTC().Format("2006-01-02T15:04:05.000Z"))
	case slog.Level:
		attribute.Value = slog.StringValue(strings.ToLower(value.String()))
	}
	return attribute
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
