// A service that takes orders: `go run orders_service.go [PORT]`. Its own recover answers 500 for a handler that panics.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"
)

type shop struct{ orders atomic.Int64 }

func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "order %d taken\n", s.orders.Add(1))
}

func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if reason := recover(); reason != nil {
				log.Printf("%s %s: %v", r.Method, r.URL.Path, reason)
				http.Error(w, "that went wrong", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func main() {
	port := "18098"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", (&shop{}).order)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, recovering(mux)))
}
