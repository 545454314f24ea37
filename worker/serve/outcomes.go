package serve

import (
	"slices"
	"sync"
	"sync/atomic"

	"lockstep/model"
)

// outcomes keeps what the fold made of the messages that teaches of this
// worker wait for. The zero value waits for none.
type outcomes struct {
	waiting atomic.Int64 // how many there are: the fold looks no further while there are none

	mu   sync.Mutex
	byID map[string][]*awaited // by Nats-Msg-Id; guarded by mu
}

// awaited is what the fold made of the messages of one id since it is waited
// for. There may be several: the id may have been used before.
type awaited struct {
	messages []outcome // guarded by outcomes.mu
}

type outcome struct {
	seq    uint64
	events []model.Outcome
}

// await begins to wait for the messages of an id.
func (o *outcomes) await(id string) *awaited {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := &awaited{}
	if o.byID == nil {
		o.byID = map[string][]*awaited{}
	}
	o.byID[id] = append(o.byID[id], a)
	o.waiting.Add(1)
	return a
}

// forget ends that.
func (o *outcomes) forget(id string, a *awaited) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.byID[id], a)
	if i < 0 {
		return
	}
	o.waiting.Add(-1)
	if o.byID[id] = slices.Delete(o.byID[id], i, i+1); len(o.byID[id]) == 0 {
		delete(o.byID, id)
	}
}

// record takes in what the fold made of a message, if it is waited for.
func (o *outcomes) record(id string, result *model.Result) {
	if id == "" || o.waiting.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.byID[id] {
		a.messages = append(a.messages, outcome{result.Seq, slices.Clone(result.Outcomes)})
	}
}

// of is what the fold made of the message at a sequence; nil if it was not the
// one that is waited for.
func (o *outcomes) of(a *awaited, seq uint64) []model.Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range a.messages {
		if m.seq == seq {
			return m.events
		}
	}
	return nil
}
