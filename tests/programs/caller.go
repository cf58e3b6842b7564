// A client that nobody prepared. Each line of its input is "get URL" (one client, which keeps its connections) or
// "dial ADDRESS" (a connection of its own, on which it says hi); each is answered with a line of JSON.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"time"
)

type outcome struct {
	Said   string  `json:"said"`
	Status int     `json:"status"`
	Peer   string  `json:"peer"`
	Error  string  `json:"error"`
	Ms     float64 `json:"ms"`
	Reused bool    `json:"reused"`
}

func get(client *http.Client, url string) (found outcome) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		found.Error = err.Error()
		return
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		found.Peer, found.Reused = info.Conn.RemoteAddr().String(), info.Reused
	}}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		found.Error = err.Error()
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		found.Error = err.Error()
	}
	found.Said, found.Status = string(body), response.StatusCode
	return
}

func dial(address string) (found outcome) {
	connection, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		found.Error = err.Error()
		return
	}
	defer connection.Close()
	found.Peer = connection.RemoteAddr().String()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = io.WriteString(connection, "hi\n"); err == nil {
		found.Said, err = bufio.NewReader(connection).ReadString('\n')
	}
	if err != nil {
		found.Error = err.Error()
	}
	return
}

func main() {
	client := &http.Client{Timeout: 10 * time.Second}
	answers := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		what, where, _ := strings.Cut(lines.Text(), " ")
		began := time.Now()
		var found outcome
		if what == "get" {
			found = get(client, where)
		} else {
			found = dial(where)
		}
		found.Ms = float64(time.Since(began).Microseconds()) / 1000
		answers.Encode(found)
	}
}
