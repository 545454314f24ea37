//go:build e2e

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/model"
)

// TestPeers measures Lockstep beside what people have without it: River in a
// Python loop, and the FastAPI app. The two of a pair take turns. It fails
// only if an answer is wrong; LOCKSTEP_JSON set prints the figures as JSON.
func TestPeers(t *testing.T) {
	python := os.Getenv("LOCKSTEP_PEER_PYTHON")
	if python == "" {
		t.Fatal("LOCKSTEP_PEER_PYTHON is not set: run just bench-peers")
	}
	b := &bench{ctx: t.Context(), slice: 3 * time.Second, rounds: 5}
	p := &peers{t: t, python: python, rows: penguinEvents(t), dir: t.TempDir()}
	p.start()
	var results []measured
	for _, f := range p.figures() {
		t.Logf("%s: %s", f.name, f.what)
		m, err := b.figure(f)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		results = append(results, m)
	}
	if os.Getenv("LOCKSTEP_JSON") != "" {
		line, err := json.Marshal(map[string]any{"figures": results})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(line))
		return
	}
	var table bytes.Buffer
	printFigures(&table, results)
	for _, m := range results {
		fmt.Fprintf(&table, "%-12s %.4g ÷ %.4g\n", m.Name, m.Ours, m.Floor)
	}
	t.Log("\n" + table.String())
}

// peers are both sides, running.
type peers struct {
	t      *testing.T
	python string
	rows   [][]byte
	dir    string // of the app
	binary string // Lockstep's, as it is released
	url    string // of the NATS server
	door   string // the worker's HTTP door, host and port
	app    string // the app's
	worker *process
	served *process // uvicorn, over four workers
}

func (p *peers) figures() []figure {
	return []figure{
		{
			name: "memory", what: "an idle worker's memory, MiB ÷ a FastAPI worker's", atMost: true,
			goal: 0.3, rounds: 1, measure: p.memory,
		},
		{
			name: "nats", what: "predictions/s, 64 clients, over NATS ÷ the FastAPI app with 4 workers", goal: 15,
			measure: p.predictions(func(slice time.Duration) (float64, error) {
				return synchronous(64, nil)(p.t.Context(), p.url, "penguins.predict", []byte(benchRow), slice, gentoo)
			}),
		},
		{
			name: "http", what: "predictions/s, 64 connections, over HTTP ÷ the FastAPI app with 4 workers",
			goal: 8,
			measure: p.predictions(func(slice time.Duration) (float64, error) {
				return connections(p.door, slice)
			}),
		},
		{
			name: "fold",
			what: "events/s from its bytes to the state after it, one core ÷ River's predict-then-learn",
			goal: 60, measure: p.fold,
		},
		{
			name: "ready", what: "time to ready on an empty log, s ÷ the FastAPI worker's", atMost: true,
			goal: 0.1, measure: p.ready,
		},
	}
}

// gentoo checks an answer to benchRow.
func gentoo(answer []byte) error {
	if !bytes.HasPrefix(answer, []byte(`{"species":"Gentoo","predicted":`)) {
		return fmt.Errorf("answered %s", answer)
	}
	return nil
}

// start runs a NATS server and a worker, and the app with four workers, all
// processes of their own that have learned the penguins.
func (p *peers) start() {
	t := p.t
	p.binary = filepath.Join(t.TempDir(), "lockstep")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	_, port := startBroker(t, t.TempDir(), "0")
	p.url = "nats://127.0.0.1:" + port
	worker, found, err := startProcess(
		t.TempDir(), append(os.Environ(), "HOME="+t.TempDir()), `"url":"http://([0-9.:]+)"`, p.binary, "worker",
		"-s", p.url, "--name", "peer", "--http", "127.0.0.1:0",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { worker.stop(syscall.SIGKILL) })
	p.worker, p.door = worker, found[1]

	if err := os.CopyFS(p.dir, os.DirFS(filepath.Join("testdata", "peers", "fastapi"))); err != nil {
		t.Fatal(err)
	}
	one := p.uvicorn("--port", "0")
	nc := connectTo(t, p.url)
	awaitFleet(t, nc, 1, 1, 0)
	app, err := dialHTTP(one.address)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range p.rows {
		if err := teachOne(t.Context(), nc, row); err != nil {
			t.Fatal(err)
		}
		if answer, err := app.post("/learn", row); err != nil {
			t.Fatalf("%s %v", answer, err)
		}
	}
	app.conn.Close()
	one.process.stop(syscall.SIGTERM) // it keeps its model
	four := p.uvicorn("--port", fmt.Sprint(freePort(t)), "--workers", "4")
	p.served, p.app = four.process, four.address
}

type uvicorn struct {
	process *process
	address string
}

// uvicorn runs the app until it serves.
func (p *peers) uvicorn(args ...string) uvicorn {
	p.t.Helper()
	process, _, err := startProcess(
		p.dir, os.Environ(), `Application startup complete`,
		append([]string{p.python, "-m", "uvicorn", "app:app", "--no-access-log"}, args...)...)
	if process != nil {
		p.t.Cleanup(func() { process.stop(syscall.SIGKILL) })
	}
	if err != nil {
		p.t.Fatal(err)
	}
	address := regexp.MustCompile(`running on http://([0-9.:]+)`)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		out := process.output()
		found := address.FindStringSubmatch(out)
		all := len(args) < 4 || strings.Count(out, "Application startup complete") >= 4
		if found != nil && all {
			return uvicorn{process, found[1]}
		}
		if time.Now().After(deadline) {
			p.t.Fatal("uvicorn does not serve: ", out)
		}
	}
}

// predictions compares a way of asking with the app.
func (p *peers) predictions(ours func(time.Duration) (float64, error)) func(*bench, int) (float64, float64, error) {
	return func(b *bench, round int) (float64, float64, error) {
		return turns(
			round,
			func() (float64, error) { return ours(b.slice) },
			func() (float64, error) { return connections(p.app, b.slice) },
		)
	}
}

// connections asks for predictions over 64 HTTP connections, each waiting for
// its answer, and returns the answers per second.
func connections(address string, slice time.Duration) (float64, error) {
	var answered atomic.Int64
	failed := make(chan error, 64)
	began := time.Now()
	for range 64 {
		go func() {
			c, err := dialHTTP(address)
			if err != nil {
				failed <- err
				return
			}
			defer c.conn.Close()
			for time.Since(began) < slice {
				answer, err := c.post("/predict", []byte(benchRow))
				if err == nil {
					err = gentoo(answer)
				}
				if err != nil {
					failed <- err
					return
				}
				answered.Add(1)
			}
			failed <- nil
		}()
	}
	var err error
	for range 64 {
		err = errors.Join(err, <-failed)
	}
	return float64(answered.Load()) / time.Since(began).Seconds(), err
}

// httpConn is an HTTP connection that costs little: what is measured is who
// answers.
type httpConn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func dialHTTP(address string) (*httpConn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &httpConn{conn: conn, in: bufio.NewReader(conn)}, nil
}

// post sends a JSON body and returns the answer's, which is good until the
// next call; an error if it is not 200.
func (c *httpConn) post(path string, body []byte) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c.out = fmt.Appendf(
		c.out[:0],
		"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, len(body), body,
	)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	ok, length := bytes.HasPrefix(status, []byte("HTTP/1.1 200")), -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = textproto.TrimBytes(line)
		if len(line) == 0 {
			break
		}
		if key, value, found := bytes.Cut(line, []byte(":")); found && bytes.EqualFold(key, []byte("content-length")) {
			if length, err = strconv.Atoi(string(textproto.TrimBytes(value))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, errors.New("an answer without its length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return nil, err
	}
	if !ok {
		return c.body, errors.New("it is not 200")
	}
	return c.body, nil
}

// fold compares the model on one core with River in a loop.
func (p *peers) fold(b *bench, round int) (float64, float64, error) {
	right := 0
	ours := func() (float64, error) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		m, err := model.New(model.DefaultSpec())
		if err != nil {
			return 0, err
		}
		seq, began := uint64(0), time.Now()
		for time.Since(began) < b.slice {
			for _, row := range p.rows {
				seq++
				m.Apply(model.Message{Seq: seq, Subject: model.SubjectLearn, Data: row, Time: int64(seq)})
			}
			if seq == uint64(len(p.rows)) {
				right = int(m.Metrics().Accuracy()*float64(seq) + 0.5)
			}
		}
		if m.Learned() != seq {
			return 0, fmt.Errorf("%d of %d events were learned", m.Learned(), seq)
		}
		return float64(seq) / time.Since(began).Seconds(), nil
	}
	river := func() (float64, error) {
		loop := exec.Command(p.python, "loop.py", fmt.Sprint(b.slice.Seconds()))
		loop.Dir, loop.Stdin, loop.Stderr = p.dir, bytes.NewReader(bytes.Join(p.rows, []byte("\n"))), os.Stderr
		out, err := loop.Output()
		if err != nil {
			return 0, err
		}
		var said struct {
			Right int
			Rate  float64
		}
		err = json.Unmarshal(out, &said)
		if right != 0 && said.Right != right {
			err = errors.Join(err, fmt.Errorf("River predicts %d of the penguins rightly, and Lockstep %d", said.Right, right))
		}
		return said.Rate, err
	}
	return turns(round, ours, river)
}

// memory compares the resident memory of idle workers, in MiB.
func (p *peers) memory(*bench, int) (float64, float64, error) {
	const mib = 1 << 20
	ours := float64(residentMemory(p.t, p.worker.cmd.Process.Pid)) / mib
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.served.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	var all []float64
	for _, child := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			return 0, 0, err
		}
		if theirs := float64(residentMemory(p.t, pid)) / mib; theirs > 40 { // one child only tracks the others' resources
			all = append(all, theirs)
		}
	}
	if len(all) != 4 {
		return 0, 0, fmt.Errorf("uvicorn has %d workers", len(all))
	}
	return ours, median(all), nil
}

// ready compares how long it takes from the start of a process until it
// answers, with nothing learned, in seconds.
func (p *peers) ready(_ *bench, round int) (float64, float64, error) {
	ours := func() (float64, error) {
		_, port := startBroker(p.t, p.t.TempDir(), "0")
		url := "nats://127.0.0.1:" + port
		began := time.Now()
		worker, _, err := startProcess(
			p.t.TempDir(), append(os.Environ(), "HOME="+p.t.TempDir()), `"state":"ready"`, p.binary, "worker",
			"-s", url, "--http", "127.0.0.1:0",
		)
		if err != nil {
			return 0, err
		}
		took := time.Since(began)
		worker.stop(syscall.SIGKILL)
		return took.Seconds(), nil
	}
	theirs := func() (float64, error) {
		if err := os.RemoveAll(filepath.Join(p.dir, "model")); err != nil {
			return 0, err
		}
		began := time.Now()
		one := p.uvicorn("--port", "0")
		took := time.Since(began)
		one.process.stop(syscall.SIGKILL)
		return took.Seconds(), nil
	}
	return turns(round, ours, theirs)
}
