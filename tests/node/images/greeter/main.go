// greeter is what runs in the Pods of the end-to-end tests, as server and as client.
//
//	greeter serve [ADDRESS]                       answers every request with the Pod's name
//	greeter call [-rate N] [-for DURATION] URL    sends requests over new connections, prints a JSON account
//	greeter resolve NAME                          prints the addresses that DNS has for the name
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: greeter serve [ADDRESS] | call [-rate N] [-for DURATION] URL | resolve NAME"))
	}
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(arguments)
	case "call":
		call(arguments)
	case "resolve":
		resolve(arguments)
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "greeter:", err)
	os.Exit(1)
}

func serve(arguments []string) {
	address := ":8080"
	if len(arguments) > 0 {
		address = arguments[0]
	}
	// Without POD_NAME it is the host's name, which is the Pod's as well.
	name := os.Getenv("POD_NAME")
	if name == "" {
		name, _ = os.Hostname()
	}
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, name)
	})}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	done := make(chan struct{})
	go func() {
		<-ended.Done()
		// What was accepted is answered.
		within, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(within)
		close(done)
	}()
	fmt.Printf("%s listens on %s\n", name, address)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fail(err)
	}
	<-done
}

// account is what came of the requests of one second of the run.
type account struct {
	Second    int            `json:"second"`
	Succeeded map[string]int `json:"succeeded"`
	Failed    map[string]int `json:"failed"`
}

func call(arguments []string) {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	rate := flags.Int("rate", 50, "requests a second")
	length := flags.Duration("for", 10*time.Second, "how long to send")
	patience := flags.Duration("timeout", time.Second, "how long to wait for an answer")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 || *rate < 1 {
		fail(fmt.Errorf("usage: greeter call [-rate N] [-for DURATION] [-timeout DURATION] URL"))
	}
	// A connection for each request: those that are kept would not see kube-proxy's choice.
	client := &http.Client{Timeout: *patience, Transport: &http.Transport{DisableKeepAlives: true}}

	var lock sync.Mutex
	var waiting sync.WaitGroup
	seconds := []*account{}
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	for time.Since(began) < *length {
		sent := time.Now()
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			who, err := get(client, flags.Arg(0))
			lock.Lock()
			defer lock.Unlock()
			// By when it was sent: a request that hangs counts where it began to.
			second := int(sent.Sub(began) / time.Second)
			for len(seconds) <= second {
				seconds = append(seconds, &account{len(seconds), map[string]int{}, map[string]int{}})
			}
			if err != nil {
				seconds[second].Failed[cause(err)]++
			} else {
				seconds[second].Succeeded[who]++
			}
		}()
		<-tick.C
	}
	waiting.Wait()
	succeeded, failed := map[string]int{}, map[string]int{}
	for _, second := range seconds {
		for who, count := range second.Succeeded {
			succeeded[who] += count
		}
		for why, count := range second.Failed {
			failed[why] += count
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"url": flags.Arg(0), "began": began.UTC(), "succeeded": succeeded, "failed": failed, "seconds": seconds,
	})
}

func get(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	return strings.TrimSpace(string(body)), err
}

// cause leaves out what differs from request to request, such as the local port.
func cause(err error) string {
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "timeout"
	}
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndex(text, ":")+1:])
}

func resolve(arguments []string) {
	if len(arguments) != 1 {
		fail(fmt.Errorf("usage: greeter resolve NAME"))
	}
	addresses, err := net.LookupHost(arguments[0])
	if err != nil {
		fail(err)
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
}
