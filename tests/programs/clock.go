// Clock reads the clocks in four goroutines, each on a thread of its own, and tells what it reads. The first rests for
// so many microseconds as the program's argument says (1000 where there is none) after every thousand reads, the second
// twice as long, and so on.
//
// Each line on standard input is answered by one on standard output:
//
//	read    wall clock and monotonic clock in ns, and how often the wall clock went backwards or ran by more than 10 s
//	        between two reads of one goroutine ("jumps"), and how many reads there were
//	exec    a child program is started and waited for ("ok")
//	bench   ns for one time.Now(), over a million
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	readers = 4
	leap    = int64(10 * time.Second)
)

var jumps, reads int64

func hammer(rest time.Duration) {
	runtime.LockOSThread()
	last := time.Now().UnixNano()
	for {
		for i := 0; i < 1000; i++ {
			now := time.Now().UnixNano()
			if now < last || now > last+leap {
				atomic.AddInt64(&jumps, 1)
			}
			last = now
		}
		atomic.AddInt64(&reads, 1000)
		time.Sleep(rest)
	}
}

func main() {
	start, rest := time.Now(), 1000
	if len(os.Args) > 1 {
		rest, _ = strconv.Atoi(os.Args[1])
	}
	for i := 0; i < readers; i++ {
		go hammer(time.Duration(rest*(i+1)) * time.Microsecond)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "read":
			now := time.Now()
			fmt.Println(now.UnixNano(), now.Sub(start).Nanoseconds(), atomic.LoadInt64(&jumps), atomic.LoadInt64(&reads))
		case "exec":
			if err := exec.Command("/bin/true").Run(); err != nil {
				fmt.Println(err)
			} else {
				fmt.Println("ok")
			}
		case "bench":
			begin := time.Now()
			for i := 0; i < 1000000; i++ {
				time.Now()
			}
			fmt.Println(time.Since(begin).Nanoseconds() / 1000000)
		}
	}
}
