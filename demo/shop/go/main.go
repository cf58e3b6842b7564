// Shop-inventory is the shop's inventory in Go: the same addresses, options and answers as demo/shop/shop-inventory, with a
// journal instead of a database. It needs the standard library only; `squall demo --go` builds and starts it.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	defaultPort    = 8083
	listenBacklog  = 512
	headerSeconds  = 10
	headBytesMost  = 16 << 10
	settingsPeriod = 100 * time.Millisecond
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("shop-inventory: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	port := flag.Int("port", defaultPort, "port on 127.0.0.1, 0 for a free one")
	fd := flag.Int("fd", -1, "a bound socket that is inherited, instead of a port")
	data := flag.String("data", "shop-data", "folder of the journal")
	workers := flag.Int("workers", 16, "requests handled at once")
	waiting := flag.Int("waiting", 64, "requests that may wait")
	settings := flag.String("settings", "", "a file of settings, followed while it serves")
	parent := flag.Int("parent", 0, "end when the process with this pid, the parent, ends")
	flag.Func("to", "where another service is: inventory calls none", func(string) error { return nil })
	flag.Parse()
	if *parent != 0 {
		if err := endWith(*parent); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(*data, 0o755); err != nil {
		return err
	}
	stock, err := openStock(filepath.Join(*data, "inventory.journal"))
	if err != nil {
		return err
	}
	listener, err := listen(*port, *fd)
	if err != nil {
		return err
	}
	service := &service{pool: newPool(*workers, *waiting), stock: stock, workers: *workers, waiting: *waiting}
	if *settings != "" {
		go follow(*settings, settingsPeriod, service.configure)
	}
	server := &http.Server{Handler: service, ReadHeaderTimeout: headerSeconds * time.Second, MaxHeaderBytes: headBytesMost}
	return server.Serve(listener)
}

func listen(port, fd int) (net.Listener, error) {
	if fd < 0 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			fmt.Printf("shop-inventory: http://%s\n", listener.Addr())
		}
		return listener, err
	}
	if err := syscall.Listen(fd, listenBacklog); err != nil { // it is only bound so far
		return nil, fmt.Errorf("socket %d: %w", fd, err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	return net.FileListener(file)
}

// endWith has the kernel kill this process as soon as its parent ends, however it ends, even while this one is stopped.
func endWith(parent int) error {
	runtime.LockOSThread() // the wish is the thread's, and lasts as long as it
	if _, _, failed := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); failed != 0 {
		return fmt.Errorf("prctl: %w", failed)
	}
	if os.Getppid() != parent { // it ended before
		os.Exit(1)
	}
	return nil
}
