// Orders is a small service that an experiment can delay and abort requests of: target `middleware: orders`.
//
//	go run ./examples/orders -listen 127.0.0.1:8090
//	squall inject http.delay --target middleware:orders --delay 300ms --for 30s
//
// It prints its address, serves /orders/{id} and /metrics, and ends on SIGTERM. SQUALL_CHAOS_* in its environment says more.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"syscall"
	"time"

	"squall.dev/squallchaos"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve at, port 0 for a free one")
	flag.Parse()
	if err := serve(*listen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string) error {
	settings := squallchaos.DefaultSettings("orders")
	settings.Driven = true
	settings, err := squallchaos.FromEnvironment(settings)
	if err != nil {
		return err
	}
	chaos, err := squallchaos.New(settings)
	if err != nil {
		return err
	}
	defer chaos.Close()

	orders := http.NewServeMux()
	orders.HandleFunc("/orders/", order)
	all := http.NewServeMux()
	all.Handle("/", chaos.Middleware(orders))
	all.Handle("/metrics", squallchaos.Metrics()) // before the middleware: what is measured shall not be delayed

	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", listener.Addr())
	server := &http.Server{Handler: all, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-end.Done():
		patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = server.Shutdown(patience)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func order(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"order": path.Base(r.URL.Path), "state": "confirmed"})
}
