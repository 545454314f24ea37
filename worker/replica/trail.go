package replica

import (
	"lockstep/model"
	"lockstep/worker/fleet"
)

// trail is what the chains were after each of the last messages: a replica
// that replays from the start finds by it where it goes another way than before.
type trail struct {
	marks [2 * fleet.CheckpointEvery]mark
	log   uint64 // the first sequence at which the log was another; 0: none was
	state uint64 // the first at which the same log was made something else of
}

type mark struct {
	seq        uint64
	log, state [32]byte
}

// note adds the state after a message.
func (t *trail) note(m *model.Model) {
	now := mark{m.Seq(), m.LogChain(), m.StateChain()}
	was := &t.marks[now.seq%uint64(len(t.marks))]
	switch {
	case was.seq != now.seq:
	case was.log != now.log && t.log == 0:
		t.log = now.seq
	case was.log == now.log && was.state != now.state && t.state == 0:
		t.state = now.seq
	}
	*was = now
}

// differed returns where the present fold first went another way than the one
// before: by the log, and by what was made of the same log.
func (c *core) differed() (log, state uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trail.log, c.trail.state
}
