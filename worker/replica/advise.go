package replica

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// advisories is what an operator should know now, the newest of each kind. It
// is safe for concurrent use.
type advisories struct {
	mu  sync.Mutex
	all []advice // the newest last; guarded by mu
}

type advice struct{ kind, text string }

// raise adds an advisory, and reports whether it was there already. The end of
// a trial ends what was said of it.
func (a *advisories) raise(new advice) (known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known = slices.Contains(a.all, new)
	over := new.kind == "cleared" || new.kind == "healed" || new.kind == "quarantined"
	a.all = slices.DeleteFunc(a.all, func(old advice) bool {
		return old.kind == new.kind || over && (old.kind == "diverged" || old.kind == "split")
	})
	a.all = append(a.all, new)
	return known
}

// end removes the advisory of a kind, and returns it.
func (a *advisories) end(kind string) (ended advice, found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.all, func(old advice) bool { return old.kind == kind })
	if i < 0 {
		return advice{}, false
	}
	ended = a.all[i]
	a.all = slices.Delete(a.all, i, i+1)
	return ended, true
}

// has reports whether there is an advisory of a kind.
func (a *advisories) has(kind string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.all, func(old advice) bool { return old.kind == kind })
}

// text is all of them in one line, the newest first.
func (a *advisories) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var texts []string
	for _, advice := range slices.Backward(a.all) {
		texts = append(texts, advice.text)
	}
	return strings.Join(texts, "; ")
}

// Advisory is what an operator should know of the replica, in one line; empty
// if there is nothing.
func (r *Replica) Advisory() string { return r.advisories.text() }

// advise raises an advisory, logs it and publishes it. The same again says
// nothing new, but for one more loss of the log.
func (r *Replica) advise(kind, text string) {
	if r.advisories.raise(advice{kind, text}) && kind != "rolled-back" {
		return
	}
	r.log.Warn("advisory", "kind", kind, "text", text)
	r.publishAdvice(advice{kind, text}, false)
}

// endAdvice ends the advisory of a kind: its cause is gone.
func (r *Replica) endAdvice(kind string) {
	if ended, found := r.advisories.end(kind); found {
		r.log.Info("advisory ended", "kind", kind, "text", ended.text)
		r.publishAdvice(ended, true)
	}
}

func (r *Replica) publishAdvice(a advice, ended bool) {
	if r.cfg.Advise == nil {
		return
	}
	fields := map[string]any{
		"type": a.kind, "replica": r.cfg.Name, "seq": r.Applied(), "text": a.text, "time": time.Now().UTC(),
	}
	if ended {
		fields["ended"] = true
	}
	if data, err := json.Marshal(fields); err == nil {
		r.cfg.Advise(r.cfg.Spec.Name+".advisory."+a.kind, data)
	}
}
