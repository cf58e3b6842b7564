package main

import (
	"context"
	"errors"
	"sync"
)

var (
	errFull = errors.New("every worker is busy and the queue is full")
	errGone = errors.New("the client has left")
)

// pool admits so many requests at once; so many more wait their turn, in their order.
type pool struct {
	mutex          sync.Mutex
	total, waiting int
	queue          []chan struct{} // each closed when its request is admitted
	counts         counts
}

// counts are what GET /workers says.
type counts struct {
	Service   string `json:"service"`
	Total     int    `json:"total"`
	Busy      int    `json:"busy"`
	Queue     int    `json:"queue"`
	Served    int    `json:"served"`
	Failed    int    `json:"failed"`
	Refused   int    `json:"refused"`
	Abandoned int    `json:"abandoned"`
}

func newPool(total, waiting int) *pool {
	return &pool{total: total, waiting: waiting}
}

func (p *pool) resize(total, waiting int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.total, p.waiting = total, waiting
	p.admit()
}

// enter waits for a worker; errFull when too many wait already, errGone when the client leaves meanwhile.
func (p *pool) enter(ctx context.Context) error {
	p.mutex.Lock()
	if p.counts.Busy < p.total {
		p.counts.Busy++
		p.mutex.Unlock()
		return nil
	}
	if len(p.queue) >= p.waiting {
		p.counts.Refused++
		p.mutex.Unlock()
		return errFull
	}
	turn := make(chan struct{})
	p.queue = append(p.queue, turn)
	p.mutex.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.counts.Abandoned++
	for i, each := range p.queue {
		if each == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			return errGone
		}
	}
	p.counts.Busy-- // its turn came as it left
	p.admit()
	return errGone
}

// leave gives a worker back.
func (p *pool) leave(failed bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.counts.Busy--
	p.counts.Served++
	if failed {
		p.counts.Failed++
	}
	p.admit()
}

// admit lets those in whose turn it is; the mutex is held.
func (p *pool) admit() {
	for len(p.queue) > 0 && p.counts.Busy < p.total {
		p.counts.Busy++
		close(p.queue[0])
		p.queue = p.queue[1:]
	}
}

func (p *pool) now() counts {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found := p.counts
	found.Service, found.Total, found.Queue = "inventory", p.total, len(p.queue)
	return found
}
