package replica

import (
	"context"
	"runtime"
	"strings"
	"sync"

	"lockstep/bus"
	"lockstep/model"
)

// entry is a message on its way from the log to the fold.
type entry struct {
	model.Entry
	pending uint64 // messages behind it in the log when it was sent
}

func (e *entry) read(name string, msg *bus.Message) {
	e.Read(Message(name, msg))
	e.pending = msg.Pending
}

// How far reading is ahead of the fold at most.
const (
	aheadEntries = 256
	aheadBytes   = 1 << 20 // of messages; one may be larger
	foldYield    = 32      // events that are folded before anyone who waits for a CPU gets a turn
)

// follow tails a log, and calls apply with each message, one at a time and in
// order. Beside that it reads, checks and decodes the messages to come. It
// ends as the tail does, once all that came before is applied, or when apply
// returns an error.
func follow(ctx context.Context, log Log, from bus.Position, spec *model.Spec, apply func(*entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := newAhead(spec)
	var folding sync.WaitGroup
	folding.Go(func() {
		if a.fold(apply) != nil {
			cancel()
		}
	})
	check := from.Check
	from.Check = func(msg *bus.Message) bool { return a.settle() && check(msg) }
	err := log.Tail(ctx, from, a.read)
	a.close()
	folding.Wait()
	if a.err != nil {
		return a.err
	}
	return err
}

// Message is a message of the log as the model reads it.
func Message(name string, msg *bus.Message) model.Message {
	return model.Message{
		Seq: msg.Seq, Subject: strings.TrimPrefix(msg.Subject, name+"."), ID: msg.ID, Data: msg.Data,
		Time: msg.Time.UnixNano(),
	}
}

// ahead is what was read and is not folded yet.
type ahead struct {
	spec *model.Spec

	mu      sync.Mutex
	filled  sync.Cond // there is something to fold, or nothing more to come
	emptied sync.Cond // there is room again
	free    []*entry  // guarded by mu
	queue   []*entry  // guarded by mu
	count   int       // of entries that are not folded yet; guarded by mu
	bytes   int       // of them; guarded by mu
	closed  bool      // guarded by mu
	err     error     // that apply returned; guarded by mu
}

func newAhead(spec *model.Spec) *ahead {
	a := &ahead{spec: spec}
	a.filled.L, a.emptied.L = &a.mu, &a.mu
	return a
}

// read takes a message from the tail. It waits for room.
func (a *ahead) read(msg *bus.Message) error {
	e, err := a.take()
	if err != nil {
		return err
	}
	e.read(a.spec.Name, msg)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, e)
	a.count++
	a.bytes += len(e.Data)
	if len(a.queue) == 1 {
		a.filled.Signal()
	}
	return nil
}

// take returns an entry that is free, once there is room for one more.
func (a *ahead) take() (*entry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.err == nil && (a.count >= aheadEntries || a.bytes >= aheadBytes) {
		a.emptied.Wait()
	}
	if a.err != nil {
		return nil, a.err
	}
	last := len(a.free) - 1
	if last < 0 {
		return &entry{Entry: *model.NewEntry(a.spec)}, nil
	}
	e := a.free[last]
	a.free = a.free[:last]
	return e, nil
}

// settle waits until all that was read is folded; false if that failed.
func (a *ahead) settle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.err == nil && a.count > 0 {
		a.emptied.Wait()
	}
	return a.err == nil
}

// close tells the fold that nothing more will be read.
func (a *ahead) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.filled.Signal()
}

// fold applies what is read until there is no more, or apply fails.
func (a *ahead) fold(apply func(*entry) error) error {
	var batch []*entry
	events := 0
	for {
		if batch = a.next(batch); len(batch) == 0 {
			return nil
		}
		for _, e := range batch {
			if err := apply(e); err != nil {
				a.fail(err)
				return err
			}
			// A replay has always more to do: it would keep a CPU from the
			// requests of the same process.
			if events += e.Events(); events >= foldYield {
				events = 0
				runtime.Gosched()
			}
		}
	}
}

// next gives back the entries that were folded, and waits for more; none: it
// is over.
func (a *ahead) next(folded []*entry) []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range folded {
		a.count--
		a.bytes -= len(e.Data)
		a.free = append(a.free, e)
	}
	a.emptied.Signal()
	for len(a.queue) == 0 && !a.closed {
		a.filled.Wait()
	}
	batch := a.queue
	a.queue = folded[:0]
	return batch
}

func (a *ahead) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
	a.emptied.Signal()
}
