// Parks goroutines for a known time when it is asked to ("park COUNT MILLISECONDS [chan|mutex|sleep]"), collects ("gc")
// and leaks memory ("leak BYTES") on request; serves its heap profile on the address that it prints first.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var kept [][]byte

func leak(bytes int) { kept = append(kept, make([]byte, bytes)) }

// The last one says "done": nobody waits for them, for that would be one more that waits.
func park(count, milliseconds int, how string) {
	left := int32(count)
	wait := time.Duration(milliseconds) * time.Millisecond
	for i := 0; i < count; i++ {
		go func() {
			defer func() {
				if atomic.AddInt32(&left, -1) == 0 {
					fmt.Println("done")
				}
			}()
			switch how {
			case "mutex":
				var held sync.Mutex
				held.Lock()
				time.AfterFunc(wait, held.Unlock)
				held.Lock()
			case "chan":
				done := make(chan bool)
				time.AfterFunc(wait, func() { done <- true })
				<-done
			default:
				time.Sleep(wait)
			}
		}()
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, nil)
	fmt.Println(listener.Addr())
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var count, milliseconds int
		var how string
		switch line := orders.Text(); {
		case strings.HasPrefix(line, "park"):
			fmt.Sscanf(line, "park %d %d %s", &count, &milliseconds, &how)
			park(count, milliseconds, how)
			continue
		case strings.HasPrefix(line, "leak"):
			fmt.Sscanf(line, "leak %d", &count)
			leak(count)
		default:
			runtime.GC()
		}
		fmt.Println("done")
	}
}
