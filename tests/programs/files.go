// A program that does what it is told with one file, and says which errors it got: the target of io.* and syscall.*.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

func number(err error) int {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	if err != nil {
		return -1
	}
	return 0
}

func round(path string) (opened, wrote, synced, read int) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return number(err), 0, 0, 0
	}
	defer file.Close()
	_, err = file.WriteAt([]byte("x"), 0)
	wrote = number(err)
	synced = number(file.Sync())
	_, err = file.ReadAt(make([]byte, 1), 0)
	return 0, wrote, synced, number(err)
}

func many(path string, count int) (failed int) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return -1
	}
	defer file.Close()
	for i := 0; i < count; i++ {
		if file.Sync() != nil {
			failed++
		}
	}
	return failed
}

// store appends numbered records with four goroutines, each to its own file, and keeps only what was acknowledged.
func store(path string, count int) string {
	var group sync.WaitGroup
	for worker := 0; worker < 4; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			file, err := os.OpenFile(fmt.Sprintf("%s.%d", path, worker), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
			if err != nil {
				return
			}
			defer file.Close()
			offset := int64(0)
			for i := 0; i < count; i++ {
				record := []byte(fmt.Sprintf("%08d\n", i))
				for {
					if _, err := file.WriteAt(record, offset); err == nil {
						break
					}
				}
				offset += int64(len(record))
			}
		}(worker)
	}
	group.Wait()
	return "stored"
}

func connect(address string) int {
	connection, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return number(err)
	}
	connection.Close()
	return 0
}

func main() {
	path := os.Args[1]
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		words := strings.Fields(in.Text())
		count := 0
		if len(words) > 1 {
			fmt.Sscan(words[1], &count)
		}
		began := time.Now()
		switch words[0] {
		case "round":
			opened, wrote, synced, read := round(path)
			fmt.Println(opened, wrote, synced, read, time.Since(began).Microseconds())
		case "many":
			fmt.Println(many(path, count))
		case "store":
			fmt.Println(store(path, count))
		case "connect":
			fmt.Println(connect(words[1]))
		}
	}
}
