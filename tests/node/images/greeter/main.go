// greeter is what runs in the Pods of the end-to-end tests, as server and as client.
//
//	greeter [serve [ADDRESS]]                                  answers every request with its name
//	greeter call [-rate N] [-for D] [-timeout D] URL           sends requests over new connections, prints a line for each
//	greeter read [-token TOKEN] [-until WORDS] URL             prints the status and the body of one answer, as it comes
//	greeter resolve NAME                                       prints the addresses that DNS has for the name
//	greeter hang PROGRAM...                                    stops processes of these names that it can see, by SIGSTOP
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	command, arguments := "serve", os.Args[1:]
	if len(arguments) > 0 {
		command, arguments = arguments[0], arguments[1:]
	}
	switch command {
	case "serve":
		serve(arguments)
	case "call":
		call(arguments)
	case "read":
		read(arguments)
	case "resolve":
		resolve(arguments)
	case "hang":
		hang(arguments)
	default:
		fail(fmt.Errorf("unknown command %q; there are serve, call, read, resolve and hang", command))
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
	// Without this it is the host's name, which is the Pod's as well.
	name := os.Getenv("GREETER_NAME")
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

// request is what came of one request, a line of JSON.
type request struct {
	// When it was sent, in milliseconds since 1970.
	Sent int64 `json:"sent"`
	// Which instance answered, or why none did.
	By     string `json:"by,omitempty"`
	Failed string `json:"failed,omitempty"`
}

func call(arguments []string) {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	rate := flags.Int("rate", 50, "requests a second")
	length := flags.Duration("for", 0, "how long to send; 0: until stopped")
	patience := flags.Duration("timeout", time.Second, "how long to wait for an answer")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 || *rate < 1 {
		fail(fmt.Errorf("usage: greeter call [-rate N] [-for DURATION] [-timeout DURATION] URL"))
	}
	// A connection for each request: those that are kept would not see kube-proxy's choice.
	client := &http.Client{Timeout: *patience, Transport: &http.Transport{DisableKeepAlives: true}}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *length > 0 {
		var cancel context.CancelFunc
		ended, cancel = context.WithTimeout(ended, *length)
		defer cancel()
	}

	var lock sync.Mutex
	var waiting sync.WaitGroup
	lines := json.NewEncoder(os.Stdout)
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	for ended.Err() == nil {
		sent := time.Now().UnixMilli()
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			line := request{Sent: sent}
			var err error
			if line.By, err = get(client, flags.Arg(0)); err != nil {
				line.Failed = cause(err)
			}
			lock.Lock()
			defer lock.Unlock()
			_ = lines.Encode(line)
		}()
		select {
		case <-tick.C:
		case <-ended.Done():
		}
	}
	waiting.Wait()
}

func get(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", answer.StatusCode)
	}
	return strings.TrimSpace(string(body)), nil
}

// cause leaves out what differs from request to request, such as the local port.
func cause(err error) string {
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "timeout"
	}
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndex(text, ":")+1:])
}

// read prints a line as soon as it has come. It ends with the answer, or once a line has the words.
func read(arguments []string) {
	flags := flag.NewFlagSet("read", flag.ExitOnError)
	token := flags.String("token", "", "the bearer token that is sent")
	until := flags.String("until", "", "no more is read after a line with these words")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 {
		fail(fmt.Errorf("usage: greeter read [-token TOKEN] [-until WORDS] URL"))
	}
	request, err := http.NewRequest(http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		fail(err)
	}
	if *token != "" {
		request.Header.Set("Authorization", "Bearer "+*token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	fmt.Println("status", answer.StatusCode)
	lines := bufio.NewReader(answer.Body)
	for {
		line, err := lines.ReadString('\n')
		fmt.Print(line)
		switch {
		case *until != "" && strings.Contains(line, *until):
			return
		case err == io.EOF && *until == "":
			return
		case err != nil:
			fail(fmt.Errorf("the answer ended before %q: %w", *until, err))
		}
	}
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

// hang stops what runs in other containers of the Pod, which has to share its process namespace.
func hang(names []string) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil || len(names) == 0 {
		fail(fmt.Errorf("usage: greeter hang PROGRAM..."))
	}
	stopped := 0
	for _, link := range links {
		comm, err := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil || id == os.Getpid() || !slices.Contains(names, strings.TrimSpace(string(comm))) {
			continue
		}
		if err := syscall.Kill(id, syscall.SIGSTOP); err != nil {
			fail(fmt.Errorf("process %d: %w", id, err))
		}
		stopped++
	}
	if stopped < len(names) {
		fail(fmt.Errorf("of %v only %d run here", names, stopped))
	}
}
