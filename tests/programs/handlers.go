// An HTTP server that nobody prepared, as `handlers ADDRESS WAY`; the port is on its first line, "ready PORT".
//
//	net    what net/http itself does with a panic: a line in the log, the connection closed
//	own    its own recover around its handlers: an answer with status 500
//	none   a line server of goroutines without any recover: a panic ends the process
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
)

type shop struct{ name string }

//go:noinline
func (s *shop) order(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s: ordered\n", s.name) }

//go:noinline
func (s *shop) line(text string) string { return s.name + ": " + text }

func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if reason := recover(); reason != nil {
				http.Error(w, fmt.Sprint("recovered: ", reason), http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func lines(listener net.Listener, s *shop) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			for scanner := bufio.NewScanner(connection); scanner.Scan(); {
				fmt.Fprintln(connection, s.line(scanner.Text()))
			}
		}()
	}
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port)
	s := &shop{"shop"}
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.order)
	switch os.Args[2] {
	case "net":
		http.Serve(listener, mux)
	case "own":
		http.Serve(listener, recovering(mux))
	case "none":
		lines(listener, s)
	}
}
