package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

var (
	errUnknown = errors.New("there is no such item")
	errSoldOut = errors.New("sold out")
	errGivenUp = errors.New("given up")
)

// stock is what is there and what is reserved of it, as the journal tells: a file of lines, each one change that was made as
// a whole, with what was left of the item afterwards. What is written is in the kernel's hands, so a killed service loses
// nothing that it has answered for.
type stock struct {
	mutex    sync.Mutex
	journal  *os.File
	items    map[string]*item
	reserved map[int64]string
	released map[int64]bool
}

type item struct{ price, left int64 }

// entry is a line of the journal: an item as it comes into the stock (price, initial), or what an order did.
type entry struct {
	SKU     string `json:"sku,omitempty"`
	Price   int64  `json:"price,omitempty"`
	Initial int64  `json:"initial,omitempty"`
	Reserve int64  `json:"reserve,omitempty"`
	Release int64  `json:"release,omitempty"`
	Left    *int64 `json:"left,omitempty"`
}

var delivered = []entry{
	{SKU: "a1", Price: 1999, Initial: 1_000_000}, {SKU: "b2", Price: 499, Initial: 1_000_000}, {SKU: "c3", Price: 99, Initial: 3},
}

func openStock(path string) (*stock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s := &stock{journal: file, items: map[string]*item{}, reserved: map[int64]string{}, released: map[int64]bool{}}
	if err := s.replay(); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, each := range delivered {
		if s.items[each.SKU] == nil {
			if err := s.write(each); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// replay makes every change of the journal again. A last line without an end was never answered for: it is cut off.
func (s *stock) replay() error {
	lines, sound := bufio.NewReader(s.journal), int64(0)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var one entry
		if err := json.Unmarshal(line, &one); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		s.apply(one)
		sound += int64(len(line))
	}
	if err := s.journal.Truncate(sound); err != nil {
		return err
	}
	_, err := s.journal.Seek(sound, io.SeekStart)
	return err
}

func (s *stock) apply(one entry) {
	if one.Initial != 0 {
		s.items[one.SKU] = &item{price: one.Price, left: one.Initial}
	}
	if one.Reserve != 0 {
		s.reserved[one.Reserve] = one.SKU
	}
	if one.Release != 0 {
		s.released[one.Release] = true
		delete(s.reserved, one.Release)
	}
	if one.Left != nil && s.items[one.SKU] != nil {
		s.items[one.SKU].left = *one.Left
	}
}

// write puts a change into the journal, in one piece, and then makes it.
func (s *stock) write(one entry) error {
	line, err := json.Marshal(one)
	if err != nil {
		return err
	}
	at, err := s.journal.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := s.journal.Write(append(bytes.TrimSpace(line), '\n')); err != nil {
		_ = s.journal.Truncate(at) // half a line is none
		_, _ = s.journal.Seek(at, io.SeekStart)
		return err
	}
	s.apply(one)
	return nil
}

// reserve takes an item for an order, once however often it is asked, and says its price.
func (s *stock) reserve(order int64, sku string) (price int64, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.items[sku]
	if found == nil {
		return 0, errUnknown
	}
	if _, before := s.reserved[order]; before {
		return found.price, nil
	}
	if s.released[order] {
		return 0, errGivenUp
	}
	if found.left == 0 {
		return 0, errSoldOut
	}
	left := found.left - 1
	return found.price, s.write(entry{SKU: sku, Reserve: order, Left: &left})
}

// release gives an order up: what it had reserved is back, and it can reserve nothing any more.
func (s *stock) release(order int64) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	sku, had := s.reserved[order]
	if s.released[order] && !had {
		return nil
	}
	change := entry{Release: order}
	if had {
		left := s.items[sku].left + 1
		change.SKU, change.Left = sku, &left
	}
	return s.write(change)
}
