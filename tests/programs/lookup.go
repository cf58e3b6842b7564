// Looks up each name that comes on standard input, by Go's own resolver, and prints what it found in one line.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
	"time"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	names := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for names.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		addresses, err := resolver.LookupHost(ctx, names.Text())
		cancel()
		var failure *net.DNSError
		switch {
		case err == nil:
			sort.Strings(addresses)
			fmt.Println(strings.Join(addresses, " "))
		case errors.As(err, &failure) && failure.IsNotFound:
			fmt.Println("no such name")
		case errors.As(err, &failure) && failure.IsTimeout:
			fmt.Println("timed out")
		default:
			fmt.Println("failed")
		}
	}
}
