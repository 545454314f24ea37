package fleet

import (
	"fmt"
	"testing"
	"time"
)

// TestWhoIsGoneIsRemembered for a while, and not for ever.
func TestWhoIsGoneIsRemembered(t *testing.T) {
	t.Parallel()
	var m Members
	now := time.Now()
	m.Update("me", []Heartbeat{{Replica: "me"}, {Replica: "b", Seq: 7}, {Replica: "c"}}, now)
	m.Update("me", []Heartbeat{{Replica: "me"}, {Replica: "c"}}, now.Add(time.Minute))
	if all := m.All(); len(all) != 2 || !all[0].Gone || all[0].Seq != 7 || !all[0].Heard.Equal(now) || all[1].Gone {
		t.Errorf("%+v", all)
	}
	m.Update("me", []Heartbeat{{Replica: "b"}}, now.Add(2*time.Minute))
	if all := m.All(); all[0].Gone || !all[1].Gone {
		t.Errorf("%+v", all)
	}
	m.Update("me", nil, now.Add(goneFor+3*time.Minute))
	if all := m.All(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	for i := range 3 * maxGone {
		m.Update("me", []Heartbeat{{Replica: fmt.Sprint(i)}}, now.Add(time.Duration(i)*time.Second))
	}
	if all := m.All(); len(all) != maxGone+1 {
		t.Errorf("%d remembered", len(all))
	}
}
