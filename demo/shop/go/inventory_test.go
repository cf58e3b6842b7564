package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func opened(t *testing.T, path string) *stock {
	t.Helper()
	found, err := openStock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { found.journal.Close() })
	return found
}

func TestAnOrderReservesOnceAndGivesUpForGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	first := opened(t, path)
	for i := 0; i < 2; i++ {
		if price, err := first.reserve(1, "a1"); price != 1999 || err != nil {
			t.Fatal(price, err)
		}
	}
	if _, err := first.reserve(2, "none"); !errors.Is(err, errUnknown) {
		t.Error(err)
	}
	for order := int64(3); order < 6; order++ {
		_, _ = first.reserve(order, "c3")
	}
	if _, err := first.reserve(6, "c3"); !errors.Is(err, errSoldOut) {
		t.Error(err)
	}
	for i := 0; i < 2; i++ {
		if err := first.release(3); err != nil {
			t.Error(err)
		}
	}
	if _, err := first.reserve(3, "c3"); !errors.Is(err, errGivenUp) {
		t.Error(err)
	}
	if _, err := first.reserve(6, "c3"); err != nil {
		t.Error(err)
	}
	if err := first.release(9); err != nil {
		t.Error(err)
	}
	again := opened(t, path)
	if left := again.items["c3"].left; left != 0 || again.items["a1"].left != 999_999 || len(again.reserved) != 4 || !again.released[9] {
		t.Errorf("%d left, %v reserved, %v released", left, again.reserved, again.released)
	}
}

func TestHalfALineIsNoChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	first := opened(t, path)
	_, _ = first.reserve(1, "c3")
	whole, _ := os.ReadFile(path)
	_ = os.WriteFile(path, append(whole, `{"sku":"c3","reserve":2,"le`...), 0o600)
	again := opened(t, path)
	if again.items["c3"].left != 2 || len(again.reserved) != 1 {
		t.Errorf("%+v %v", again.items["c3"], again.reserved)
	}
	if _, err := again.reserve(3, "c3"); err != nil {
		t.Error(err)
	}
	if third := opened(t, path); len(third.reserved) != 2 {
		t.Errorf("%v", third.reserved)
	}
	_ = os.WriteFile(path, []byte("rubbish\n"), 0o600)
	if _, err := openStock(path); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Error(err)
	}
}

func TestAPoolIsBoundedAndFair(t *testing.T) {
	one := newPool(1, 2)
	ctx, leave := context.WithCancel(context.Background())
	if err := one.enter(ctx); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	order := make(chan int, 2)
	for i := 0; i < 2; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			if one.enter(context.Background()) == nil {
				order <- i
				one.leave(false)
			}
		}(i)
		for one.now().Queue <= i {
			time.Sleep(time.Millisecond)
		}
	}
	if err := one.enter(ctx); !errors.Is(err, errFull) {
		t.Error(err)
	}
	one.resize(1, 3)
	gone := make(chan error)
	go func() { gone <- one.enter(ctx) }()
	for one.now().Queue < 3 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-gone; !errors.Is(err, errGone) {
		t.Error(err)
	}
	one.leave(true)
	group.Wait()
	if first := <-order; first != 0 {
		t.Errorf("%d was first", first)
	}
	want := counts{Service: "inventory", Total: 1, Served: 3, Failed: 1, Refused: 1, Abandoned: 1}
	if one.now() != want {
		t.Errorf("%+v", one.now())
	}
}
