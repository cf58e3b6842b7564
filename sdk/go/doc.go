// Package squallchaos is chaos middleware for Go services: it delays or aborts a sample of the requests, where the
// service says so or where a Squall experiment does so from outside, while the service runs.
//
// Everything is off until somebody switches it on. sdk/PROTOCOL.md of the Squall repository describes how a request is
// decided about and how a middleware is driven; the Python middleware follows the same description and draws the same
// numbers.
//
//	settings := squallchaos.DefaultSettings("orders")
//	settings.Name, settings.Driven = "orders", true // an experiment may drive it: target `middleware: orders`
//	chaos, err := squallchaos.New(settings)
//	if err != nil {
//		return err
//	}
//	defer chaos.Close()
//	return http.ListenAndServe(":8080", chaos.Middleware(mux))
//
// The parts: settings.go (what can be set), draws.go and source.go (which request is hit, and how hard), secret.go (the
// signed header), faults.go (the control file), control.go and the files named for a system (how Squall drives it),
// chaos.go (one decision), middleware.go (net/http), telemetry.go (the counter, the span, the log line).
//
// gRPC has a module of its own, squall.dev/squallchaos/grpcchaos, so that who serves HTTP does not build gRPC.
package squallchaos

// Version is this module's version, as it stands in the registration that Squall reads.
const Version = "0.1.0"
