package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	bodyBytesMost = 64 << 10
	workersMost   = 1000
	waitingMost   = 10_000
)

// service answers requests; those for the stock by a worker, others at once, so that they are answered even when every
// worker is stuck.
type service struct {
	pool             *pool
	stock            *stock
	step             atomic.Value
	workers, waiting int // where the settings file says nothing
}

type answer map[string]any

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /health":
		step, _ := s.step.Load().(string)
		say(w, http.StatusOK, answer{"service": "inventory", "pid": os.Getpid(), "step": step})
	case "GET /workers":
		say(w, http.StatusOK, s.pool.now())
	case "GET /metrics":
		s.measure(w)
	case "POST /reservations":
		s.work(w, r, s.reserve)
	case "POST /reservations/release":
		s.work(w, r, s.release)
	default:
		say(w, http.StatusNotFound, answer{"error": fmt.Sprintf("inventory has no %s %s", r.Method, r.URL.Path)})
	}
}

// asked is a request's body.
type asked struct {
	Order *int64
	SKU   string
}

// work has a worker handle a request, when there is one.
func (s *service) work(w http.ResponseWriter, r *http.Request, handle func(asked) (int, answer)) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMost))
	if err != nil {
		say(w, http.StatusRequestEntityTooLarge, answer{"error": err.Error()})
		return
	}
	var request asked
	if err := json.Unmarshal(body, &request); err != nil || request.Order == nil || *request.Order <= 0 {
		say(w, http.StatusBadRequest, answer{"error": "the body must be a JSON object with the order's number"})
		return
	}
	if err := s.pool.enter(r.Context()); err != nil {
		w.Header().Set("Retry-After", "1")
		say(w, http.StatusServiceUnavailable, answer{"error": err.Error()})
		return
	}
	status, content := http.StatusInternalServerError, answer{"error": "inventory failed; its log says why"}
	defer func() { s.pool.leave(status >= http.StatusInternalServerError) }()
	status, content = handle(request)
	say(w, status, content)
}

func (s *service) reserve(request asked) (int, answer) {
	price, err := s.stock.reserve(*request.Order, request.SKU)
	switch {
	case err == nil:
		return http.StatusCreated, answer{"price": price}
	case errors.Is(err, errUnknown):
		return http.StatusNotFound, answer{"error": fmt.Sprintf("there is no item %q", request.SKU)}
	case errors.Is(err, errSoldOut), errors.Is(err, errGivenUp):
		return http.StatusConflict, answer{"error": fmt.Sprintf("%q is sold out, or order %d was given up", request.SKU, *request.Order)}
	}
	log.Print(err)
	return http.StatusInternalServerError, answer{"error": "inventory failed; its log says why"}
}

func (s *service) release(request asked) (int, answer) {
	if err := s.stock.release(*request.Order); err != nil {
		log.Print(err)
		return http.StatusInternalServerError, answer{"error": "inventory failed; its log says why"}
	}
	return http.StatusOK, answer{"order": *request.Order}
}

func say(w http.ResponseWriter, status int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(content) // who asked has gone
}

// measure writes what the Python services measure of their workers too.
func (s *service) measure(w http.ResponseWriter) {
	now := s.pool.now()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintf(w, "# TYPE resilience_pool_workers gauge\nresilience_pool_workers{dependency=\"inventory\",pool=\"default\"} %d\n"+
		"# TYPE resilience_pool_busy gauge\nresilience_pool_busy{dependency=\"inventory\",pool=\"default\"} %d\n"+
		"# TYPE resilience_pool_waiting gauge\nresilience_pool_waiting{dependency=\"inventory\",pool=\"default\"} %d\n"+
		"# TYPE resilience_pool_requests_total counter\n"+
		"resilience_pool_requests_total{dependency=\"inventory\",pool=\"default\",outcome=\"served\"} %d\n"+
		"resilience_pool_requests_total{dependency=\"inventory\",pool=\"default\",outcome=\"shed\"} %d\n",
		now.Total, now.Busy, now.Queue, now.Served, now.Refused)
}

// settings are the parts of the shop's settings file that are inventory's.
type settings struct {
	Shop      struct{ Step string }
	Inventory struct{ Workers, Waiting *int }
}

// configure puts settings in force; those out of range are refused whole, and the old ones stay.
func (s *service) configure(found settings) {
	workers, waiting := orElse(found.Inventory.Workers, s.workers), orElse(found.Inventory.Waiting, s.waiting)
	if workers < 1 || workers > workersMost || waiting < 0 || waiting > waitingMost {
		log.Printf("inventory: workers must be 1 to %d, waiting 0 to %d; the old settings stay", workersMost, waitingMost)
		return
	}
	s.pool.resize(workers, waiting)
	s.step.Store(found.Shop.Step)
}

func orElse(given *int, otherwise int) int {
	if given == nil {
		return otherwise
	}
	return *given
}

// follow reads a settings file whenever it is another one; one that cannot be read changes nothing.
func follow(path string, period time.Duration, apply func(settings)) {
	var known string
	for {
		if content, err := os.ReadFile(path); err == nil && string(content) != known {
			known = string(content)
			var found settings
			if err := json.Unmarshal(content, &found); err != nil {
				log.Printf("%s: %v", path, err)
			} else {
				apply(found)
			}
		}
		time.Sleep(period)
	}
}
