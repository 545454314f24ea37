package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"lockstep/bus"
	"lockstep/bus/bustest/farlink"
	"lockstep/model"
	"lockstep/worker/replica"
)

// figures are what bench measures.
func figures() []figure {
	return []figure{
		{
			name: "predict", what: "predictions/s, 256 in flight ÷ a micro echo of the same size",
			goal: 0.80, measure: predictions(flood, "echo"),
		},
		{
			name: "predict-bare", what: "predictions/s, 256 in flight ÷ a bare echo of the same size",
			measure: predictions(flood, "bare"),
		},
		{
			name: "predict-sync",
			what: "predictions/s, 64 synchronous clients ÷ a micro echo of the same size", goal: 0.95,
			measure: predictions(synchronous(64, nil), "echo"),
		},
		{
			name: "replay", what: "replay of single events ÷ a raw reader with the same settings",
			goal: 0.90, rounds: 5, measure: replays(1),
		},
		{
			name: "replay-batches",
			what: "replay of batches of 100, events/s ÷ a raw reader of single messages", goal: 2,
			rounds: 5, measure: replays(100),
		},
		{
			name: "replay-far",
			what: "replay through a link of 40 ms and 400 Mbit/s ÷ a raw reader whose window covers it",
			goal: 0.80, rounds: 5, measure: replayFar,
		},
		{
			name: "learn",
			what: "bulk learn, sync always, events/s ÷ acknowledged single publishes, many in flight",
			goal: 20, measure: bulkLearn,
		},
		{
			name: "teach-1",
			what: "teaches/s of 1 client, sync always ÷ those under a Nats-Msg-Id, which are stored one by one",
			goal: 0.95, measure: teaches(1),
		},
		{
			name: "teach-64",
			what: "teaches/s of 64 clients, sync always ÷ acknowledged single publishes by 64", goal: 4,
			measure: teaches(64),
		},
		{
			name: "teach-256",
			what: "teaches/s of 256 clients, sync always ÷ acknowledged single publishes by 256", goal: 8,
			measure: teaches(256),
		},
		{
			name: "applied",
			what: "publish to applied on all of 16 replicas, p50 ÷ 16 raw ordered consumers", atMost: true,
			goal: 1.3, measure: applied,
		},
		{
			name:   "ack-while-catching-up",
			what:   "a live publish's ack p99 while four workers catch up ÷ while four raw ordered consumers do",
			atMost: true, goal: 1.5, rounds: 3, measure: catchUp,
		},
		{
			name: "predict-while-folding", what: "predict p99 while 50,000 events/s are folded ÷ idle",
			atMost: true, goal: 3, measure: predictWhileFolding,
		},
		{
			name: "categories-predict", what: "cost of a prediction at 5,000 categories ÷ at 3",
			atMost: true, goal: 1.5, measure: categories(false),
		},
		{
			name: "categories-learn", what: "cost of a learn at 5,000 categories ÷ at 3", atMost: true,
			goal: 1.5, measure: categories(true),
		},
		{
			name:   "ready",
			what:   "ms from the start of a worker's process to its first answer, empty log (no floor)",
			rounds: 3, measure: ofProcess(ready),
		},
		{
			name: "memory",
			what: "MB resident of a worker's process that has answered and is idle (no floor)", rounds: 3,
			measure: ofProcess(idleMemory),
		},
		{name: "binary", what: "MB of the program (no floor)", rounds: 1, measure: binary},
		{
			name:   "allocations",
			what:   "allocations of the model per prediction and per folded event, decoding included",
			atMost: true, goal: 0, rounds: 1, measure: allocations,
		},
	}
}

// benchRow is what is asked, and benchReply as long as what is answered.
const benchRow = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`

// taught makes a log that has learned the penguins, and one worker on it.
func (b *bench) taught(workers int) (url string, err error) {
	if url, err = b.server(true); err != nil {
		return "", err
	}
	if err := b.workers(url, workers, model.DefaultSpec()); err != nil {
		return "", err
	}
	nc, err := b.connect(url)
	if err != nil {
		return "", err
	}
	rows, err := penguinRows()
	if err != nil {
		return "", err
	}
	batch := append(append([]byte("["), bytes.Join(rows, []byte(","))...), ']')
	_, err = bus.Ask(b.ctx, nc, "penguins.teach", batch, nil)
	return url, err
}

// load asks one subject for a while, and returns the answers per second. check
// is called with every answer.
type load func(ctx context.Context, url, subject string, body []byte, slice time.Duration, check func([]byte) error) (float64, error)

// predictions compares predictions with an echo.
func predictions(ask load, floor string) func(*bench, int) (float64, float64, error) {
	var url string
	return func(b *bench, round int) (float64, float64, error) {
		if round == 0 {
			var err error
			if url, err = b.taught(1); err != nil {
				return 0, 0, err
			}
			nc, err := b.connect(url)
			if err != nil {
				return 0, 0, err
			}
			sample, err := bus.Ask(b.ctx, nc, "penguins.predict", []byte(benchRow), nil)
			if err != nil {
				return 0, 0, err
			}
			if err := b.echo(url, len(sample.Data)); err != nil {
				return 0, 0, err
			}
		}
		ours := func() (float64, error) {
			return ask(b.ctx, url, "penguins.predict", []byte(benchRow), b.slice, func(answer []byte) error {
				if !bytes.HasPrefix(answer, []byte(`{"species":"Gentoo","predicted":`)) ||
					!bytes.Contains(answer, []byte(`"receipt":"r1.`)) {
					return fmt.Errorf("answered %s", answer)
				}
				return nil
			})
		}
		theirs := func() (float64, error) {
			return ask(b.ctx, url, floor, []byte(benchRow), b.slice, func([]byte) error { return nil })
		}
		return turns(round, ours, theirs)
	}
}

// echo answers on "echo" as a micro service and on "bare" without one, with a
// reply of a size.
func (b *bench) echo(url string, size int) error {
	nc, err := b.connect(url)
	if err != nil {
		return err
	}
	reply := bytes.Repeat([]byte("x"), size)
	service, err := micro.AddService(nc.Conn, micro.Config{Name: "echo", Version: "1.0.0"})
	if err != nil {
		return err
	}
	if err := service.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(reply) }), micro.WithEndpointSubject("echo")); err != nil {
		return err
	}
	if _, err := nc.QueueSubscribe("bare", "q", func(m *nats.Msg) { _ = m.Respond(reply) }); err != nil {
		return err
	}
	return nc.Flush()
}

// flood keeps 256 requests in flight on one connection.
func flood(
	ctx context.Context, url, subject string, body []byte, slice time.Duration,
	check func([]byte) error,
) (float64, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	inbox := nc.NewInbox()
	window := make(chan struct{}, 256)
	var answered atomic.Int64
	var bad atomic.Pointer[error]
	_, err = nc.Subscribe(inbox, func(m *nats.Msg) {
		err := check(m.Data)
		if code := m.Header.Get(micro.ErrorCodeHeader); code != "" || m.Header.Get("Status") != "" {
			err = fmt.Errorf("answered %s %s", code, m.Data)
		}
		if err != nil {
			bad.Store(&err)
		}
		answered.Add(1)
		<-window
	})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for n := 0; ; n++ {
		if n%64 == 0 && time.Since(began) > slice {
			break
		}
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := nc.PublishRequest(subject, inbox, body); err != nil {
			return 0, err
		}
	}
	rate := float64(answered.Load()) / time.Since(began).Seconds()
	if err := bad.Load(); err != nil {
		return 0, *err
	}
	return rate, nil
}

// synchronous asks from a number of clients, each waiting for its answer. With
// ids, each request has one.
func synchronous(clients int, id func() string) load {
	return func(ctx context.Context, url, subject string, body []byte, slice time.Duration, check func([]byte) error) (float64, error) {
		nc, err := nats.Connect(url)
		if err != nil {
			return 0, err
		}
		defer nc.Close()
		var answered atomic.Int64
		failed := make(chan error, clients)
		began := time.Now()
		for range clients {
			go func() {
				for time.Since(began) < slice && ctx.Err() == nil {
					msg := &nats.Msg{Subject: subject, Data: body}
					if id != nil {
						msg.Header = nats.Header{nats.MsgIdHdr: {id()}}
					}
					answer, err := nc.RequestMsg(msg, 5*time.Second)
					if err == nil {
						err = check(answer.Data)
					}
					if err != nil {
						failed <- err
						return
					}
					answered.Add(1)
				}
				failed <- ctx.Err()
			}()
		}
		for range clients {
			err = errors.Join(err, <-failed)
		}
		return float64(answered.Load()) / time.Since(began).Seconds(), err
	}
}

// teaches compares teaches, which share messages, with single publishes to a
// stream like the log, which no one reads; those of one client, which share
// nothing, with teaches that must be stored alone. All are answered once they
// are synced.
func teaches(clients int) func(*bench, int) (float64, float64, error) {
	var url string
	var event []byte
	return func(b *bench, round int) (float64, float64, error) {
		if round == 0 {
			rows, err := penguinRows()
			if err != nil {
				return 0, 0, err
			}
			event = rows[0]
			if url, err = b.teachable(); err != nil {
				return 0, 0, err
			}
		}
		rate := func(subject, stream string, id func() string) func() (float64, error) {
			return func() (float64, error) {
				return synchronous(clients, id)(b.ctx, url, subject, event, b.slice, func(answer []byte) error {
					if !bytes.HasPrefix(answer, fmt.Appendf(nil, `{"stream":%q`, stream)) {
						return fmt.Errorf("%s answered %s", subject, answer)
					}
					return nil
				})
			}
		}
		floor := rate("raw.learn", "RAW", nil)
		if clients == 1 {
			floor = rate("penguins.teach", "PENGUINS", bus.NewID)
		}
		return turns(round, rate("penguins.teach", "PENGUINS", nil), floor)
	}
}

// teachable starts a server that syncs each message, a worker on it, and
// beside its log a stream that no one reads.
func (b *bench) teachable() (url string, err error) {
	if url, err = b.server(false); err != nil {
		return "", err
	}
	if err := b.workers(url, 1, model.DefaultSpec()); err != nil {
		return "", err
	}
	nc, err := b.connect(url)
	if err != nil {
		return "", err
	}
	js, err := jetstream.New(nc.Conn)
	if err != nil {
		return "", err
	}
	_, err = js.CreateStream(
		b.ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.learn"}, AllowDirect: true},
	)
	return url, err
}

// fill appends events to a log in messages of a size, and returns the log.
func (b *bench) fill(url string, events, batch int) (*bus.Log, error) {
	nc, err := b.connect(url)
	if err != nil {
		return nil, err
	}
	log, err := bus.OpenLog(
		b.ctx, nc,
		bus.LogConfig{
			Model:   "penguins",
			Genesis: func() []byte { return model.NewGenesis(model.DefaultSpec(), bus.NewID()) },
		},
	)
	if err != nil {
		return nil, err
	}
	return log, b.bulk(log, events, batch)
}

// bulk appends events, every message acknowledged.
func (b *bench) bulk(log *bus.Log, events, batch int) error {
	rows, err := penguinRows()
	if err != nil {
		return err
	}
	p := log.Publisher(b.ctx, "penguins.learn", func(int, bus.Ack, error) {})
	nonce := bus.NewID()
	for i := 0; i < events; i += batch {
		body := rows[i%len(rows)]
		if batch > 1 {
			body = []byte{'['}
			for j := range batch {
				body = append(append(body, rows[(i+j)%len(rows)]...), ',')
			}
			body[len(body)-1] = ']'
		}
		if err := p.Publish(nonce+strconv.Itoa(i), body, i); err != nil {
			return err
		}
	}
	return p.Close()
}

// replays compares a fold of a log through NATS with a raw reader.
func replays(batch int) func(*bench, int) (float64, float64, error) {
	var url string
	var log, single *bus.Log
	return func(b *bench, round int) (x, y float64, err error) {
		if round == 0 {
			if url, err = b.server(true); err != nil {
				return 0, 0, err
			}
			if log, err = b.fill(url, b.events, batch); err != nil {
				return 0, 0, err
			}
			if single = log; batch > 1 {
				if url, err = b.server(true); err != nil {
					return 0, 0, err
				}
				if single, err = b.fill(url, b.events/5, 1); err != nil {
					return 0, 0, err
				}
			}
		}
		ours := func() (float64, error) { return b.foldAll(log, (b.events+batch-1)/batch*batch) }
		floor := func() (float64, error) { return rawRead(b.ctx, url, single, rawBatch) }
		return turns(round, ours, floor)
	}
}

// foldAll folds a whole log of so many events, and returns how many a second.
func (b *bench) foldAll(log *bus.Log, events int) (float64, error) {
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		return 0, err
	}
	_, last, err := log.End(b.ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = replica.FoldTo(b.ctx, log, m, last)
	if err == nil && m.Learned() != uint64(events) {
		err = fmt.Errorf("%d events were learned", m.Learned())
	}
	return float64(m.Learned()) / time.Since(began).Seconds(), err
}

// replayFar is replays with a server that is 40 ms away, behind 400 Mbit/s. On
// a link without a bandwidth the fold itself is what takes time.
func replayFar(b *bench, round int) (float64, float64, error) {
	url, err := b.server(true)
	if err != nil {
		return 0, 0, err
	}
	if _, err := b.fill(url, b.events, 1); err != nil {
		return 0, 0, err
	}
	link, err := farlink.Open(
		farlink.Config{
			Target: strings.TrimPrefix(url, "nats://"), RoundTrip: 40 * time.Millisecond, BytesPerSecond: 50 << 20,
		},
	)
	if err != nil {
		return 0, 0, err
	}
	defer link.Close()
	far := "nats://" + link.Addr()
	nc, err := b.connect(far)
	if err != nil {
		return 0, 0, err
	}
	log, err := bus.BindLog(b.ctx, nc, bus.LogConfig{Model: "penguins"})
	if err != nil {
		return 0, 0, err
	}
	ours := func() (float64, error) { return b.foldAll(log, b.events) }
	floor := func() (float64, error) { return rawRead(b.ctx, far, log, 20*rawBatch) }
	return turns(round, ours, floor)
}

// rawBatch is how many messages a raw reader asks for at a time.
const rawBatch = 1000

// rawRead reads a log as its tail does, so many messages at a time, and does
// nothing with it.
func rawRead(ctx context.Context, url string, log *bus.Log, batch int) (float64, error) {
	_, last, err := log.End(ctx)
	if err != nil {
		return 0, err
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	consumer, err := js.CreateConsumer(
		ctx, "PENGUINS",
		jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: time.Minute},
	)
	if err != nil {
		return 0, err
	}
	messages := make(chan *nats.Msg, 4*batch)
	inbox := nc.NewInbox()
	if _, err := nc.ChanSubscribe(inbox, messages); err != nil {
		return 0, err
	}
	request, err := json.Marshal(map[string]any{"batch": batch, "expires": 30 * time.Second})
	if err != nil {
		return 0, err
	}
	next := "$JS.API.CONSUMER.MSG.NEXT.PENGUINS." + consumer.CachedInfo().Name
	asked := 0
	for n := uint64(0); n < last; {
		if asked <= batch/2 {
			if err := nc.PublishRequest(next, inbox, request); err != nil {
				return 0, err
			}
			asked += batch
		}
		select {
		case msg := <-messages:
			for more := len(messages); ; more-- { // those that are here already
				if msg.Header.Get("Status") == "" {
					n++
				}
				if asked--; more == 0 {
					break
				}
				msg = <-messages
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return float64(last) / time.Since(began).Seconds(), nil
}

// bulkLearn compares batches with single publishes, all acknowledged.
func bulkLearn(b *bench, round int) (float64, float64, error) {
	url, err := b.server(false)
	if err != nil {
		return 0, 0, err
	}
	log, err := b.fill(url, 0, 1)
	if err != nil {
		return 0, 0, err
	}
	timed := func(events, batch int) func() (float64, error) {
		return func() (float64, error) {
			began := time.Now()
			err := b.bulk(log, events, batch)
			return float64(events) / time.Since(began).Seconds(), err
		}
	}
	return turns(round, timed(b.events/2, model.MaxBatch), timed(b.events/100, 1))
}

// quantile of durations, in milliseconds.
func quantile(values []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds() * 1000
}

// applied compares how long it takes until all of 16 replicas have applied an
// event with how long 16 raw consumers take to get it.
func applied(b *bench, round int) (float64, float64, error) {
	n := max(b.events/5000, 40)
	ours := func() (float64, error) {
		url, err := b.server(false)
		if err != nil {
			return 0, err
		}
		log, err := b.fill(url, 0, 1)
		if err != nil {
			return 0, err
		}
		return b.deliveries(log, n, func(deliver func()) error {
			nc, err := b.connect(url)
			if err != nil {
				return err
			}
			own, err := bus.BindLog(b.ctx, nc, bus.LogConfig{Model: "penguins"})
			if err != nil {
				return err
			}
			m, err := model.New(model.DefaultSpec())
			if err != nil {
				return err
			}
			b.background(func(ctx context.Context) {
				_, _ = replica.FoldTo(ctx, own, m, 1<<62, func(m *model.Model) { deliver() })
			})
			return nil
		})
	}
	floor := func() (float64, error) {
		url, err := b.server(false)
		if err != nil {
			return 0, err
		}
		log, err := b.fill(url, 0, 1)
		if err != nil {
			return 0, err
		}
		return b.deliveries(log, n, func(deliver func()) error {
			nc, err := b.connect(url)
			if err != nil {
				return err
			}
			return ordered(b, nc, func(jetstream.Msg) { deliver() })
		})
	}
	return turns(round, ours, floor)
}

// background runs something until the figure is over.
func (b *bench) background(do func(context.Context)) {
	ctx, cancel := context.WithCancel(b.ctx)
	var wait sync.WaitGroup
	wait.Go(func() { do(ctx) })
	b.close = append(b.close, func() { cancel(); wait.Wait() })
}

// ordered consumes the log with nats.go's ordered consumer by its defaults.
func ordered(b *bench, nc *bus.Conn, handle func(jetstream.Msg)) error {
	js, err := jetstream.New(nc.Conn)
	if err != nil {
		return err
	}
	consumer, err := js.OrderedConsumer(b.ctx, "PENGUINS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	consuming, err := consumer.Consume(handle)
	if err != nil {
		return err
	}
	b.close = append(b.close, consuming.Stop)
	return nil
}

// deliveries starts 16 consumers and returns the p50 of the time from a
// publish until the last of them has it, in milliseconds.
func (b *bench) deliveries(log *bus.Log, n int, start func(deliver func()) error) (float64, error) {
	const consumers = 16
	arrived := make(chan struct{}, consumers)
	for range consumers {
		if err := start(func() { arrived <- struct{}{} }); err != nil {
			return 0, err
		}
	}
	wait := func() error {
		for range consumers {
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				return errors.New("a message was not delivered to all")
			}
		}
		return nil
	}
	if err := wait(); err != nil { // the genesis
		return 0, err
	}
	rows, err := penguinRows()
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for i := range n {
		began := time.Now()
		if _, err := log.Append(b.ctx, "penguins.learn", bus.NewID(), rows[i%len(rows)]); err != nil {
			return 0, err
		}
		if err := wait(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	return quantile(took, 0.5), nil
}

// catchUp compares what a live publisher feels while four workers replay the
// log with what it feels while four raw consumers do.
func catchUp(b *bench, round int) (float64, float64, error) {
	events := b.events / 2
	ack := func(start func(url string, log *bus.Log, done func()) error) func() (float64, error) {
		return func() (float64, error) {
			url, err := b.server(true)
			if err != nil {
				return 0, err
			}
			log, err := b.fill(url, events, 1)
			if err != nil {
				return 0, err
			}
			live, err := b.connect(url)
			if err != nil {
				return 0, err
			}
			publisher, err := bus.BindLog(b.ctx, live, bus.LogConfig{Model: "penguins"})
			if err != nil {
				return 0, err
			}
			var busy atomic.Int32
			busy.Store(4)
			for range 4 {
				if err := start(url, log, func() { busy.Add(-1) }); err != nil {
					return 0, err
				}
			}
			rows, err := penguinRows()
			if err != nil {
				return 0, err
			}
			var took []time.Duration
			for began := time.Now(); busy.Load() > 0 && time.Since(began) < time.Minute; {
				at := time.Now()
				if _, err := publisher.Append(b.ctx, "penguins.learn", bus.NewID(), rows[0]); err != nil {
					return 0, err
				}
				took = append(took, time.Since(at))
			}
			if len(took) < 20 {
				return 0, fmt.Errorf("only %d publishes were timed: take more events", len(took))
			}
			return quantile(took, 0.99), nil
		}
	}
	ours := ack(func(url string, _ *bus.Log, done func()) error {
		nc, err := b.connect(url)
		if err != nil {
			return err
		}
		own, err := bus.BindLog(b.ctx, nc, bus.LogConfig{Model: "penguins"})
		if err != nil {
			return err
		}
		m, err := model.New(model.DefaultSpec())
		if err != nil {
			return err
		}
		b.background(func(ctx context.Context) { _, _ = replica.FoldTo(ctx, own, m, uint64(events)); done() })
		return nil
	})
	floor := ack(func(url string, _ *bus.Log, done func()) error {
		nc, err := b.connect(url)
		if err != nil {
			return err
		}
		n := 0
		return ordered(b, nc, func(jetstream.Msg) {
			if n++; n == events {
				done()
			}
		})
	})
	return turns(round, ours, floor)
}

// predictWhileFolding compares a prediction's p99 under a stream of learns
// with that on an idle worker.
func predictWhileFolding(b *bench, round int) (float64, float64, error) {
	url, err := b.taught(1)
	if err != nil {
		return 0, 0, err
	}
	asker, err := nats.Connect(url)
	if err != nil {
		return 0, 0, err
	}
	defer asker.Close()
	p99 := func() (float64, error) {
		var took []time.Duration
		for began := time.Now(); time.Since(began) < b.slice; {
			at := time.Now()
			if _, err := asker.Request("penguins.predict", []byte(benchRow), 5*time.Second); err != nil {
				return 0, err
			}
			took = append(took, time.Since(at))
		}
		return quantile(took, 0.99), nil
	}
	folding := func() (float64, error) {
		nc, err := b.connect(url)
		if err != nil {
			return 0, err
		}
		log, err := bus.BindLog(b.ctx, nc, bus.LogConfig{Model: "penguins"})
		if err != nil {
			return 0, err
		}
		rows, err := penguinRows()
		if err != nil {
			return 0, err
		}
		batch := append(append([]byte("["), bytes.Join(rows[:100], []byte(","))...), ']')
		ctx, cancel := context.WithCancel(b.ctx)
		var feeding sync.WaitGroup
		feeding.Go(func() { // 500 batches of 100 a second
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					_, _ = log.Append(ctx, "penguins.learn", bus.NewID(), batch)
				}
			}
		})
		defer func() { cancel(); feeding.Wait() }()
		return p99()
	}
	return turns(round, folding, p99)
}

// categories compares the cost of a model with many categories and labels
// with that of one with few.
func categories(learn bool) func(*bench, int) (float64, float64, error) {
	return func(b *bench, round int) (float64, float64, error) {
		cost := func(islands int) func() (float64, error) {
			return func() (float64, error) {
				spec := model.DefaultSpec()
				spec.Inputs[0].MaxValues = 5000
				m, err := model.New(spec)
				if err != nil {
					return 0, err
				}
				body := func(i int) []byte {
					return fmt.Appendf(
						nil,
						`{"attributes":{"island":"i%d","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"},"species":"s%d"}`,
						i%islands, i%3,
					)
				}
				seq := uint64(0)
				apply := func(data []byte) {
					seq++
					m.Apply(model.Message{Seq: seq, Subject: model.SubjectLearn, Data: data})
				}
				for i := range max(islands, 1000) {
					apply(body(i))
				}
				bodies := make([][]byte, 256)
				for i := range bodies {
					bodies[i] = body(i * max(islands/256, 1))
				}
				d := model.NewDecoder(spec)
				began, n := time.Now(), 0
				for ; time.Since(began) < b.slice/4; n += len(bodies) {
					for _, data := range bodies {
						if learn {
							apply(data)
							continue
						}
						row, err := d.Attributes(data[len(`{"attributes":`) : bytes.IndexByte(data, '}')+1])
						if err != nil {
							return 0, err
						}
						m.Predict(row)
					}
				}
				return time.Since(began).Seconds() / float64(n) * 1e9, nil
			}
		}
		return turns(round, cost(5000), cost(3))
	}
}

// allocations counts ours per prediction and per event; the floor is 1, so
// that the ratio is the number.
func allocations(*bench, int) (float64, float64, error) {
	rows, err := penguinRows()
	if err != nil {
		return 0, 0, err
	}
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		return 0, 0, err
	}
	d := model.NewDecoder(m.Spec())
	for i, row := range rows {
		m.Apply(model.Message{Seq: uint64(i + 1), Subject: model.SubjectLearn, Data: row})
	}
	asked := []byte(benchRow)
	var before, after runtime.MemStats
	const n = 10_000
	runtime.ReadMemStats(&before)
	for i := range n {
		m.Apply(model.Message{Seq: uint64(len(rows) + i + 1), Subject: model.SubjectLearn, Data: rows[i%len(rows)]})
		row, err := d.Attributes(asked)
		if err != nil {
			return 0, 0, err
		}
		m.Predict(row)
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / n), 1, nil
}

// ofProcess measures a worker's process; the floor is 1, so that the ratio is
// the number.
func ofProcess(
	measure func(b *bench, nc *bus.Conn, worker *exec.Cmd) (float64, error),
) func(*bench, int) (float64, float64, error) {
	return func(b *bench, _ int) (float64, float64, error) {
		url, err := b.server(true)
		if err != nil {
			return 0, 0, err
		}
		nc, err := b.connect(url)
		if err != nil {
			return 0, 0, err
		}
		program, err := os.Executable()
		if err != nil {
			return 0, 0, err
		}
		worker := exec.CommandContext(b.ctx, program, "worker", "-s", url)
		defer func() {
			if worker.Process != nil {
				_ = worker.Process.Kill()
				_ = worker.Wait()
			}
		}()
		x, err := measure(b, nc, worker)
		return x, 1, err
	}
}

// ready is how long a worker takes to its first answer, in milliseconds.
func ready(b *bench, nc *bus.Conn, worker *exec.Cmd) (float64, error) {
	began := time.Now()
	if err := worker.Start(); err != nil {
		return 0, err
	}
	for {
		_, err := bus.Ask(b.ctx, nc, "penguins.predict", []byte(benchRow), nil)
		if err == nil {
			return time.Since(began).Seconds() * 1000, nil
		}
		if !errors.Is(err, bus.ErrNobody) || time.Since(began) > time.Minute {
			return 0, err
		}
		time.Sleep(time.Millisecond)
	}
}

// idleMemory is how much memory a worker has that is idle, in MB.
func idleMemory(b *bench, nc *bus.Conn, worker *exec.Cmd) (float64, error) {
	if _, err := ready(b, nc, worker); err != nil {
		return 0, err
	}
	time.Sleep(b.slice)
	out, err := exec.CommandContext(b.ctx, "ps", "-o", "rss=", "-p", strconv.Itoa(worker.Process.Pid)).Output()
	if err != nil {
		return 0, fmt.Errorf("ps: %w", err)
	}
	kilobytes, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return kilobytes / 1000, err
}

func binary(*bench, int) (float64, float64, error) {
	program, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	file, err := os.Stat(program)
	if err != nil {
		return 0, 0, err
	}
	return float64(file.Size()) / 1e6, 1, nil
}
