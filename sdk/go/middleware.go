package squallchaos

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Middleware puts chaos before a handler. The ResponseWriter reaches the handler as it is. A request that ends while it is
// held back goes on to the handler at once, with its context ended: what a handler does for a caller who has given up is
// part of what is tested.
func (c *Chaos) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := Request{Method: r.Method, Path: pathOf(r), Host: r.Host, Headers: r.Header}
		verdict := c.Decide(request)
		if verdict.Strip != "" {
			r = without(r, verdict.Strip)
		}
		if verdict.Reason != "" {
			c.Inject(r.Context(), request, verdict)
		}
		if verdict.Reason == Abort {
			answer(w, verdict)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pathOf is the path that was asked for, whatever has been cut off it (http.StripPrefix) before the middleware.
func pathOf(r *http.Request) string {
	rest, found := strings.CutPrefix(r.RequestURI, r.URL.Path)
	if found && (rest == "" || rest[0] == '?') || !strings.HasPrefix(r.RequestURI, "/") {
		return r.URL.Path // nothing was; or there is no path of the kind, as in CONNECT
	}
	asked, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return r.URL.Path
	}
	return asked.Path
}

// without is the request without a header; the original belongs to the server.
func without(r *http.Request, header string) *http.Request {
	stripped := new(http.Request)
	*stripped = *r
	stripped.Header = r.Header.Clone()
	stripped.Header.Del(header)
	return stripped
}

func answer(w http.ResponseWriter, verdict Verdict) {
	if verdict.Body != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	verdict.Headers(w.Header().Set)
	status := verdict.Status
	if !isHTTPStatus(status) { // a code, of a Chaos made for gRPC
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, verdict.Body) // who asked has gone, or the method or status has no body
}
